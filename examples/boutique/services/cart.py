"""The cart service: what each shopper has chosen, kept in memory."""
# ruff: noqa: N802 - the .proto names the methods

import threading
from collections import OrderedDict

import grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services.runtime import refuse, serve_grpc

MAX_CARTS = 10_000  # the cart left alone the longest makes room
MAX_QUANTITY = 20


class Cart(shop_pb2_grpc.CartServiceServicer):
    """Carts by shopper, newest use last; `_lock` guards `_carts` and every cart in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._carts: OrderedDict[str, dict[str, int]] = OrderedDict()

    def Get(self, request: shop_pb2.CartRequest, context: grpc.ServicerContext) -> shop_pb2.Cart:
        """The shopper's cart, empty if there is none."""
        with self._lock:
            return _message(self._carts.get(request.user_id, {}))

    def Add(self, request: shop_pb2.ChangeCartRequest, context: grpc.ServicerContext) -> shop_pb2.Cart:
        """Add to what is there, up to the most that one order may hold."""
        _check(request, context)
        with self._lock:
            cart = self._cart(request.user_id)
            item = request.item
            cart[item.product_id] = min(MAX_QUANTITY, cart.get(item.product_id, 0) + item.quantity)
            return _message(cart)

    def Set(self, request: shop_pb2.ChangeCartRequest, context: grpc.ServicerContext) -> shop_pb2.Cart:
        """Replace a quantity; 0 removes the item."""
        _check(request, context)
        with self._lock:
            cart = self._cart(request.user_id)
            cart[request.item.product_id] = min(MAX_QUANTITY, request.item.quantity)
            if not request.item.quantity:
                del cart[request.item.product_id]
            return _message(cart)

    def Clear(self, request: shop_pb2.CartRequest, context: grpc.ServicerContext) -> shop_pb2.Empty:
        """Forget the cart."""
        with self._lock:
            self._carts.pop(request.user_id, None)
        return shop_pb2.Empty()

    def _cart(self, user_id: str) -> dict[str, int]:
        cart = self._carts.setdefault(user_id, {})
        self._carts.move_to_end(user_id)
        if len(self._carts) > MAX_CARTS:
            self._carts.popitem(last=False)
        return cart


def _check(request: shop_pb2.ChangeCartRequest, context: grpc.ServicerContext) -> None:
    if not request.user_id or not request.item.product_id or request.item.quantity < 0:
        refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "expected a user, a product and a quantity from 0")


def _message(cart: dict[str, int]) -> shop_pb2.Cart:
    items = [shop_pb2.CartItem(product_id=name, quantity=count) for name, count in cart.items()]
    return shop_pb2.Cart(items=items)


if __name__ == "__main__":
    serve_grpc(
        "shop.CartService", lambda server: shop_pb2_grpc.add_CartServiceServicer_to_server(Cart(), server)
    )
