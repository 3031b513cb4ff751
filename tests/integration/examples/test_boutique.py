"""The boutique's services without a mesh: every address points at the service itself."""

import http.client
import re
from collections.abc import Mapping

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from examples.boutique.api import shop_pb2, shop_pb2_grpc
from examples.boutique.shopper import ADDRESS_AND_CARD, Shopper

PLAIN = [("grpc.enable_http_proxy", 0)]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
GRPC_SERVICES = {
    name: f"shop.{name.capitalize()}Service"
    for name in ("catalog", "cart", "currency", "checkout", "payment", "shipping", "recommendation")
}


def put_in_cart(shopper: Shopper, product_id: str, quantity: int = 1) -> tuple[int, str]:
    return shopper.post("/cart", {"product": product_id, "quantity": str(quantity)})


def test_first_page_shows_every_product_with_its_price(shopper: Shopper) -> None:
    status, page = shopper.get("/")
    assert status == 200
    assert len(re.findall(r'href="/product/', page)) == 9
    assert "Stoneware mug" in page
    assert "$24.00" in page


def test_product_page_shows_reviews_and_what_goes_with_it(shopper: Shopper) -> None:
    status, page = shopper.get("/product/lamp")
    assert status == 200
    assert "It darkened within a month" in page
    assert page.index('href="/product/candle"') < page.index('href="/product/mug"')
    assert 'href="/product/lamp"' not in page


def test_prices_follow_the_currency_chosen(shopper: Shopper) -> None:
    shopper.post("/currency", {"currency": "JPY"})
    assert "¥3,576" in shopper.get("/product/mug")[1]


def test_currency_form_leads_back_to_the_page_it_was_on(shop: Mapping[str, str], shopper: Shopper) -> None:
    referer = {"Referer": f"http://{shop['frontend']}/product/vase"}
    assert "Bud vase" in shopper.post("/currency", {"currency": "EUR"}, referer)[1]


def test_currency_form_never_leads_to_another_site(shopper: Shopper) -> None:
    for referer in ("http://elsewhere.example/", "http://elsewhere.example//evil.example/", "nonsense"):
        assert "On the shelves" in shopper.post("/currency", {"currency": "EUR"}, {"Referer": referer})[1]


def test_cart_adds_changes_and_removes(shopper: Shopper) -> None:
    put_in_cart(shopper, "mug", 2)
    assert "$72.00" in put_in_cart(shopper, "mug")[1]
    assert "$24.00" in shopper.post("/cart/change", {"product": "mug", "quantity": "1"})[1]
    assert "Your cart is empty" in shopper.post("/cart/change", {"product": "mug", "remove": "1"})[1]


def test_two_shoppers_have_a_cart_each(shop: Mapping[str, str], shopper: Shopper) -> None:
    put_in_cart(shopper, "mug")
    assert "Your cart is empty" in Shopper(shop["frontend"]).get("/cart")[1]


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("/cart", {"product": "mug", "quantity": "0"}, 400),
        ("/cart", {"product": "mug", "quantity": "-1"}, 400),
        ("/cart", {"product": "mug", "quantity": "21"}, 400),
        ("/cart", {"product": "mug", "quantity": "many"}, 400),
        ("/cart", {"product": "nothing", "quantity": "1"}, 404),
        ("/cart/change", {"product": "", "quantity": "1"}, 400),
        ("/nowhere", {}, 404),
        ("/cart", {"product": "x" * 20_000}, 400),
    ],
)
def test_bad_forms_are_refused(shopper: Shopper, path: str, form: dict[str, str], status: int) -> None:
    assert shopper.post(path, form)[0] == status


@pytest.mark.parametrize("path", ["/product/nothing", "/product/../cart", "/orders/WK-UNKNOWN", "/nowhere"])
def test_pages_that_do_not_exist_are_404(shopper: Shopper, path: str) -> None:
    assert shopper.get(path)[0] == 404


def test_checkout_places_an_order_and_empties_the_cart(shopper: Shopper) -> None:
    put_in_cart(shopper, "lamp", 2)
    put_in_cart(shopper, "vase")
    status, page = shopper.post("/checkout", ADDRESS_AND_CARD, TRACE)
    assert status == 200
    assert "Thank you, Robin Wick" in page
    assert "$338.50" in page
    assert re.search(r'id="order">WK-[2-9A-Z]{8}<', page)
    assert f'id="trace">{TRACE_ID}<' in page
    assert "card ending in 4242" in page
    assert "Your cart is empty" in shopper.get("/cart")[1]


def test_receipt_is_for_its_shopper_alone(shop: Mapping[str, str], shopper: Shopper) -> None:
    receipt = shopper.buy("vase")
    assert shopper.get(f"/orders/{receipt.order_id}")[0] == 200
    assert Shopper(shop["frontend"]).get(f"/orders/{receipt.order_id}")[0] == 404


def test_checkout_without_a_trace_still_places_the_order(shopper: Shopper) -> None:
    receipt = shopper.buy("tote")
    assert receipt.order_id.startswith("WK-")
    assert receipt.trace_id == ""


def test_purchases_are_counted_by_the_reviews(shopper: Shopper) -> None:
    shopper.buy("clock")
    assert "Bought once" in shopper.get("/product/clock")[1]


def test_what_shoppers_type_is_shown_as_text(shopper: Shopper) -> None:
    put_in_cart(shopper, "mug")
    form = ADDRESS_AND_CARD | {"name": '<script>"x"</script>', "cvc": "1"}
    status, page = shopper.post("/checkout", form)
    assert status == 422
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert 'id="cvc-problem"' in page


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"card": "4242 4242 4242 4241"}, "this is not a card number"),
        ({"expiry": "01/20"}, "the card has expired"),
    ],
)
def test_refused_card_leaves_the_cart_as_it_was(shopper: Shopper, change: dict[str, str], text: str) -> None:
    put_in_cart(shopper, "stool")
    status, page = shopper.post("/checkout", ADDRESS_AND_CARD | change)
    assert status == 422
    assert text in page
    assert "Oak stool" in shopper.get("/cart")[1]


def test_checkout_of_an_empty_cart_leads_to_the_cart(shopper: Shopper) -> None:
    assert "Your cart is empty" in shopper.get("/checkout")[1]


@pytest.mark.parametrize(("name", "service"), GRPC_SERVICES.items())
def test_grpc_service_answers_health_and_reflection(shop: Mapping[str, str], name: str, service: str) -> None:
    with grpc.insecure_channel(shop[name], options=PLAIN) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=60
        )
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=60)
    assert status.status == health_pb2.HealthCheckResponse.SERVING
    assert service in {entry.name for entry in answer.list_services_response.service}


def test_trace_context_travels_to_the_second_service(shop: Mapping[str, str]) -> None:
    metadata = (("traceparent", TRACE["traceparent"]), ("x-other", "1"))
    with grpc.insecure_channel(shop["cart"], options=PLAIN) as channel:
        item = shop_pb2.CartItem(product_id="mug", quantity=1)
        shop_pb2_grpc.CartServiceStub(channel).Add(
            shop_pb2.ChangeCartRequest(user_id="u", item=item), timeout=60
        )
    with grpc.insecure_channel(shop["checkout"], options=PLAIN) as channel:
        order = shop_pb2_grpc.CheckoutServiceStub(channel).PlaceOrder(
            shop_pb2.PlaceOrderRequest(
                user_id="u",
                currency="EUR",
                address=shop_pb2.Address(street="Torgasse 4", country="Germany"),
                card=shop_pb2.Card(number="4242424242424242", expiry_year=2039, expiry_month=12),
            ),
            metadata=metadata,
            timeout=60,
        )
    assert order.trace_id == TRACE_ID
    assert order.total.currency == "EUR"
    assert order.total.micros == sum(line.total.micros for line in order.lines) + order.shipping.micros


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"productIds": "mug"}', b'{"productIds": [1]}', b"\xff", b"x" * 20_000]
)
def test_reviews_refuse_what_is_no_purchase(shop: Mapping[str, str], body: bytes) -> None:
    host, _, port = shop["reviews"].partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("POST", "/purchases", body)
        assert connection.getresponse().status == 400
    finally:
        connection.close()


def test_pages_allow_no_script_and_no_frame(shop: Mapping[str, str]) -> None:
    host, _, port = shop["frontend"].partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
    finally:
        connection.close()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]
