"""What the front end asks of the other services, and how it puts the answers into views for the pages."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.services import money
from examples.boutique.services.runtime import ServiceUnavailableError, connect, fetch_json
from examples.boutique.web.layout import Frame
from examples.boutique.web.views import BillView, LineView, OrderView, ProductView, Review, Reviews

DEFAULT_CURRENCY = "USD"
RECOMMENDED = 3
MAX_ORDERS = 1_000  # the oldest receipt makes room


class Storefront:
    """Stubs of every service, and the receipts of orders placed here; `_lock` guards `_orders`."""

    def __init__(self) -> None:
        self._catalog = shop_pb2_grpc.CatalogServiceStub(connect("CATALOG_SERVICE_ADDR"))
        self._cart = shop_pb2_grpc.CartServiceStub(connect("CART_SERVICE_ADDR"))
        self._currency = shop_pb2_grpc.CurrencyServiceStub(connect("CURRENCY_SERVICE_ADDR"))
        self._shipping = shop_pb2_grpc.ShippingServiceStub(connect("SHIPPING_SERVICE_ADDR"))
        self._checkout = shop_pb2_grpc.CheckoutServiceStub(connect("CHECKOUT_SERVICE_ADDR"))
        self._recommendation = shop_pb2_grpc.RecommendationServiceStub(connect("RECOMMENDATION_SERVICE_ADDR"))
        self._lock = threading.Lock()
        self._orders: OrderedDict[tuple[str, str], OrderView] = OrderedDict()

    def frame(self, user_id: str, currency: str) -> Frame:
        """The header for a shopper; an unknown currency becomes the default one."""
        codes = tuple(self._currency.List(shop_pb2.Empty()).codes)
        cart = self._cart.Get(shop_pb2.CartRequest(user_id=user_id))
        return Frame(
            currency=currency if currency in codes else DEFAULT_CURRENCY,
            currencies=codes,
            cart_count=sum(item.quantity for item in cart.items),
        )

    def products(self, currency: str) -> tuple[ProductView, ...]:
        """Everything there is."""
        return self._views(self._catalog.List(shop_pb2.Empty()).products, currency)

    def product(self, product_id: str, currency: str) -> ProductView:
        """One product. Raises: grpc.RpcError, NOT_FOUND."""
        found = self._catalog.Get(shop_pb2.GetProductsRequest(ids=[product_id]))
        return self._views(found.products, currency)[0]

    def recommended(self, product_id: str, currency: str) -> tuple[ProductView, ...]:
        """What goes with a product."""
        request = shop_pb2.RecommendationRequest(product_ids=[product_id], limit=RECOMMENDED)
        ids = self._recommendation.List(request).product_ids
        return self._views(self._catalog.Get(shop_pb2.GetProductsRequest(ids=ids)).products, currency)

    def reviews(self, product_id: str) -> Reviews:
        """What shoppers say; the page can do without."""
        try:
            answer = fetch_json("REVIEWS_ADDR", "GET", f"/products/{product_id}/reviews")
        except ServiceUnavailableError as error:
            print(f"no reviews of {product_id}: {error}", flush=True)
            return Reviews(known=False)
        if not isinstance(answer, dict):
            return Reviews(known=False)
        return Reviews(reviews=tuple(Review(**row) for row in answer["reviews"]), bought=answer["bought"])

    def add(self, user_id: str, product_id: str, quantity: int) -> None:
        """Put pieces into the cart. Raises: grpc.RpcError, NOT_FOUND for no such product."""
        self._catalog.Get(shop_pb2.GetProductsRequest(ids=[product_id]))
        self._cart.Add(_change(user_id, product_id, quantity))

    def change(self, user_id: str, product_id: str, quantity: int) -> None:
        """Set how many pieces are in the cart."""
        self._cart.Set(_change(user_id, product_id, quantity))

    def bill(self, user_id: str, currency: str) -> BillView:
        """What the cart would cost now."""
        items = self._cart.Get(shop_pb2.CartRequest(user_id=user_id)).items
        ids = [item.product_id for item in items]
        products = self._catalog.Get(shop_pb2.GetProductsRequest(ids=ids)).products
        prices = self._prices(products, currency)
        lines = [
            shop_pb2.OrderLine(
                product=product, quantity=item.quantity, total=money.times(price, item.quantity)
            )
            for item, product, price in zip(items, products, prices, strict=True)
        ]
        quote = self._shipping.Quote(shop_pb2.QuoteRequest(items=items, currency=currency))
        return _bill(lines, quote.cost, quote.days)

    def place_order(self, request: shop_pb2.PlaceOrderRequest) -> str:
        """Buy what is in the cart, and keep the receipt; gives the order's id. Raises: grpc.RpcError."""
        order: shop_pb2.Order = self._checkout.PlaceOrder(request)
        view = OrderView(
            id=order.id,
            bill=_bill(order.lines, order.shipping, order.delivery_days),
            name=order.address.name,
            email=order.address.email,
            tracking_id=order.tracking_id,
            last_digits=order.last_digits,
            trace_id=order.trace_id,
        )
        with self._lock:
            self._orders[request.user_id, order.id] = view
            if len(self._orders) > MAX_ORDERS:
                self._orders.popitem(last=False)
        return order.id

    def order(self, user_id: str, order_id: str) -> OrderView | None:
        """The receipt, for the shopper whose order it is."""
        with self._lock:
            return self._orders.get((user_id, order_id))

    def _views(self, products: Sequence[shop_pb2.Product], currency: str) -> tuple[ProductView, ...]:
        prices = self._prices(products, currency)
        return tuple(
            ProductView(
                id=product.id,
                name=product.name,
                tagline=product.tagline,
                description=product.description,
                category=product.category,
                price=money.price_text(price),
            )
            for product, price in zip(products, prices, strict=True)
        )

    def _prices(self, products: Iterable[shop_pb2.Product], currency: str) -> Sequence[shop_pb2.Money]:
        request = shop_pb2.ConvertRequest(amounts=[product.price for product in products], to=currency)
        reply: shop_pb2.ConvertReply = self._currency.Convert(request)
        return reply.amounts


def _change(user_id: str, product_id: str, quantity: int) -> shop_pb2.ChangeCartRequest:
    item = shop_pb2.CartItem(product_id=product_id, quantity=quantity)
    return shop_pb2.ChangeCartRequest(user_id=user_id, item=item)


def _bill(lines: Iterable[shop_pb2.OrderLine], shipping: shop_pb2.Money, days: int) -> BillView:
    listed = list(lines)
    goods = money.total((line.total for line in listed), shipping.currency)
    return BillView(
        lines=tuple(
            LineView(
                product_id=line.product.id,
                name=line.product.name,
                quantity=line.quantity,
                total=money.price_text(line.total),
            )
            for line in listed
        ),
        subtotal=money.price_text(goods),
        shipping=money.price_text(shipping),
        total=money.price_text(money.total((goods, shipping), shipping.currency)),
        days=days,
    )
