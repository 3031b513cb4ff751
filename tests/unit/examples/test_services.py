"""What the boutique's services decide without asking anybody."""

import datetime

import pytest

from examples.boutique.api import shop_pb2
from examples.boutique.services import money, order_form, tracing
from examples.boutique.services.payment import is_card_number, is_expired
from examples.boutique.services.recommendation import rank

EXAMPLE = order_form.EXAMPLE


def usd(micros: int) -> shop_pb2.Money:
    return shop_pb2.Money(currency="USD", micros=micros)


@pytest.mark.parametrize(
    ("currency", "micros", "text"),
    [
        ("USD", 1_234_500_000, "$1,234.50"),
        ("EUR", 0, "€0.00"),
        ("JPY", 3_576_000_000, "¥3,576"),
        ("SEK", 10_400_000, "SEK\u00a010.40"),
        ("XXX", 1_000_000, "XXX\u00a01.00"),
    ],
)
def test_price_text_is_as_shoppers_read_it(currency: str, micros: int, text: str) -> None:
    assert money.price_text(shop_pb2.Money(currency=currency, micros=micros)) == text


def test_rounded_amount_can_be_paid() -> None:
    assert money.rounded(1_234_999.6, "EUR").micros == 1_230_000
    assert money.rounded(1_500_001, "JPY").micros == 2_000_000


def test_total_adds_up_and_refuses_another_currency() -> None:
    assert money.total([usd(1), money.times(usd(2), 3)], "USD") == usd(7)
    assert money.total([], "USD") == usd(0)
    with pytest.raises(money.CurrencyMismatchError):
        money.total([usd(1)], "EUR")


@pytest.mark.parametrize("digits", ["4242424242424242", "378282246310005", "6011111111111117"])
def test_card_number_with_a_right_check_digit_is_one(digits: str) -> None:
    assert is_card_number(digits)


@pytest.mark.parametrize(
    "digits",
    ["", "0", "4242424242424241", "4242", "42424242424242424242", "\uff14\uff12" * 8, "abcd"],
)
def test_other_text_is_no_card_number(digits: str) -> None:
    assert not is_card_number(digits)


def test_card_expires_after_its_last_month() -> None:
    card = shop_pb2.Card(expiry_year=2030, expiry_month=6)
    assert not is_expired(card, datetime.date(2030, 6, 30))
    assert is_expired(card, datetime.date(2030, 7, 1))


def test_example_form_is_complete() -> None:
    assert order_form.find_problems(EXAMPLE) == {}
    order = order_form.read_order("u", "EUR", EXAMPLE)
    assert (order.card.expiry_year, order.card.expiry_month) == (2039, 12)
    assert order.address.city == "Berlin"


@pytest.mark.parametrize("name", order_form.FIELDS)
@pytest.mark.parametrize("value", ["", "   ", "x" * 201])
def test_field_left_empty_or_far_too_long_is_a_problem(name: str, value: str) -> None:
    assert set(order_form.find_problems({**EXAMPLE, name: value})) == {name}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("email", "robin"),
        ("email", "a@b"),
        ("expiry", "13/30"),
        ("expiry", "1/30"),
        ("cvc", "12"),
        ("cvc", "abc"),
    ],
)
def test_field_of_the_wrong_form_is_a_problem(name: str, value: str) -> None:
    assert set(order_form.find_problems({**EXAMPLE, name: value})) == {name}


def test_missing_fields_are_all_named() -> None:
    assert set(order_form.find_problems({})) == set(order_form.FIELDS)


def test_rank_prefers_the_shelf_of_what_was_seen() -> None:
    products = [
        shop_pb2.Product(id="mug", category="table"),
        shop_pb2.Product(id="lamp", category="light"),
        shop_pb2.Product(id="candle", category="light"),
    ]
    assert rank(products, frozenset({"candle"})) == ["lamp", "mug"]
    assert rank(products, frozenset()) == ["mug", "lamp", "candle"]
    assert rank([], frozenset({"candle"})) == []


def test_trace_context_is_kept_and_nothing_else() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracing.receive(
        [("Traceparent", parent), ("tracestate", "a=b"), ("cookie", "secret"), ("x-bin", b"\x00")]
    )
    assert tracing.current() == (("traceparent", parent), ("tracestate", "a=b"))
    assert tracing.trace_id() == "0af7651916cd43dd8448eb211c80319c"


def test_next_request_forgets_the_last_trace() -> None:
    tracing.receive([("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")])
    tracing.receive([])
    assert tracing.current() == ()
    assert tracing.trace_id() == ""


def test_malformed_trace_has_no_id() -> None:
    tracing.receive([("traceparent", "nonsense")])
    assert tracing.trace_id() == ""
