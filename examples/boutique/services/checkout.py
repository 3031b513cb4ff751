"""The checkout service: turns a cart into an order, by asking everyone who must agree.

The card is charged once everything is known and before anything leaves the shop.
"""
# ruff: noqa: N802 - the .proto names the methods

import secrets
from dataclasses import dataclass

import grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services import money, tracing
from examples.boutique.services.runtime import (
    ServiceUnavailableError,
    connect,
    fetch_json,
    refuse,
    serve_grpc,
)

ORDER_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # nothing that reads like something else


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The gRPC services that an order needs."""

    cart: shop_pb2_grpc.CartServiceStub
    catalog: shop_pb2_grpc.CatalogServiceStub
    currency: shop_pb2_grpc.CurrencyServiceStub
    shipping: shop_pb2_grpc.ShippingServiceStub
    payment: shop_pb2_grpc.PaymentServiceStub


class Checkout(shop_pb2_grpc.CheckoutServiceServicer):
    """Places one order a call; keeps nothing."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._to = neighbours

    def PlaceOrder(
        self, request: shop_pb2.PlaceOrderRequest, context: grpc.ServicerContext
    ) -> shop_pb2.Order:
        """Price, charge, ship; a neighbour's refusal becomes ours, with its code and words."""
        try:
            return self._place(request, context)
        except grpc.RpcError as error:
            refuse(context, error.code(), error.details() or "")

    def _place(self, request: shop_pb2.PlaceOrderRequest, context: grpc.ServicerContext) -> shop_pb2.Order:
        cart = self._to.cart.Get(shop_pb2.CartRequest(user_id=request.user_id))
        if not cart.items:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "the cart is empty")
        order = shop_pb2.Order(id=_order_id(), address=request.address, trace_id=tracing.trace_id())
        order.lines.extend(self._price(cart, request.currency))
        quote = self._to.shipping.Quote(
            shop_pb2.QuoteRequest(address=request.address, items=cart.items, currency=request.currency)
        )
        order.shipping.CopyFrom(quote.cost)
        order.delivery_days = quote.days
        order.total.CopyFrom(
            money.total((*(line.total for line in order.lines), quote.cost), request.currency)
        )
        payment = self._to.payment.Charge(shop_pb2.ChargeRequest(amount=order.total, card=request.card))
        order.last_digits = payment.last_digits
        shipment = self._to.shipping.Ship(
            shop_pb2.ShipRequest(order_id=order.id, address=request.address, items=cart.items)
        )
        order.tracking_id = shipment.tracking_id
        self._to.cart.Clear(shop_pb2.CartRequest(user_id=request.user_id))
        _tell_reviews(order)
        return order

    def _price(self, cart: shop_pb2.Cart, currency: str) -> list[shop_pb2.OrderLine]:
        ids = [item.product_id for item in cart.items]
        products = self._to.catalog.Get(shop_pb2.GetProductsRequest(ids=ids)).products
        prices = self._to.currency.Convert(
            shop_pb2.ConvertRequest(amounts=[product.price for product in products], to=currency)
        ).amounts
        return [
            shop_pb2.OrderLine(
                product=product, quantity=item.quantity, total=money.times(price, item.quantity)
            )
            for item, product, price in zip(cart.items, products, prices, strict=True)
        ]


def _tell_reviews(order: shop_pb2.Order) -> None:
    """Count the purchases; an order that is paid for stands whether or not that works."""
    try:
        body = {"productIds": [line.product.id for line in order.lines]}
        fetch_json("REVIEWS_ADDR", "POST", "/purchases", body)
    except ServiceUnavailableError as error:
        print(f"order {order.id}: purchases not counted: {error}", flush=True)


def _order_id() -> str:
    return "WK-" + "".join(secrets.choice(ORDER_ALPHABET) for _ in range(8))


def _neighbours() -> Neighbours:
    return Neighbours(
        cart=shop_pb2_grpc.CartServiceStub(connect("CART_SERVICE_ADDR")),
        catalog=shop_pb2_grpc.CatalogServiceStub(connect("CATALOG_SERVICE_ADDR")),
        currency=shop_pb2_grpc.CurrencyServiceStub(connect("CURRENCY_SERVICE_ADDR")),
        shipping=shop_pb2_grpc.ShippingServiceStub(connect("SHIPPING_SERVICE_ADDR")),
        payment=shop_pb2_grpc.PaymentServiceStub(connect("PAYMENT_SERVICE_ADDR")),
    )


if __name__ == "__main__":
    serve_grpc(
        "shop.CheckoutService",
        lambda server: shop_pb2_grpc.add_CheckoutServiceServicer_to_server(Checkout(_neighbours()), server),
    )
