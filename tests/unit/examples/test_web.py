"""The shop's pages as text: what comes from outside is escaped, what is missing does not break them."""

import pytest

from examples.boutique.web import layout, shelves, till
from examples.boutique.web.layout import Frame
from examples.boutique.web.views import BillView, FormView, LineView, OrderView, ProductView, Review, Reviews

EVIL = '<script>alert("x")</script>'
PRODUCT = ProductView(id="mug", name=EVIL, tagline=EVIL, description=EVIL, category=EVIL, price="$1.00")
BILL = BillView(
    lines=(LineView(product_id="mug", name=EVIL, quantity=1, total="$1.00"),),
    subtotal="$1.00",
    shipping="$1.00",
    total="$2.00",
    days=2,
)
ORDER = OrderView(
    id=EVIL, bill=BILL, name=EVIL, email=EVIL, tracking_id=EVIL, last_digits=EVIL, trace_id=EVIL
)


@pytest.mark.parametrize(
    "page",
    [
        shelves.home_page(Frame(), (PRODUCT,)),
        shelves.product_page(
            Frame(currency="USD", currencies=("USD", EVIL)),
            PRODUCT,
            Reviews(reviews=(Review(author=EVIL, stars=5, text=EVIL),)),
            (PRODUCT,),
        ),
        till.cart_page(Frame(), BILL),
        till.checkout_page(
            Frame(), BILL, FormView(values={"name": EVIL}, problems={"name": EVIL}, problem=EVIL)
        ),
        till.order_page(Frame(), ORDER),
        till.problem_page(EVIL, EVIL),
    ],
)
def test_text_from_outside_is_escaped_on_every_page(page: bytes) -> None:
    assert b"<script" not in page
    assert b"&lt;script&gt;" in page


def test_reviews_that_cannot_be_read_are_said_to_be_so() -> None:
    page = shelves.product_page(Frame(), PRODUCT, Reviews(known=False), ())
    assert b"cannot be read just now" in page


def test_product_that_nobody_drew_still_has_a_tile() -> None:
    assert layout.drawing("nothing") == ""
    assert layout.drawing("../style") == ""


def test_current_currency_is_marked() -> None:
    page = till.cart_page(Frame(currency="EUR", currencies=("USD", "EUR")), BILL)
    assert b'value="EUR" aria-pressed="true"' in page
    assert b'value="USD" aria-pressed="false"' in page


def test_receipt_without_a_trace_has_no_line_for_it() -> None:
    order = OrderView(
        id="1", bill=BILL, name="R", email="r@x.y", tracking_id="t", last_digits="1", trace_id=""
    )
    assert b"Trace" not in till.order_page(Frame(), order)
