"""What the pages show: plain values, with prices already written out."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductView:
    """A product in the shopper's currency."""

    id: str
    name: str
    tagline: str
    description: str
    category: str
    price: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One shopper's words; 1 to 5 stars."""

    author: str
    stars: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """What is said of a product. Unknown when the reviews could not be asked for."""

    reviews: tuple[Review, ...] = ()
    bought: int = 0
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LineView:
    """One line of a cart or an order."""

    product_id: str
    name: str
    quantity: int
    total: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BillView:
    """The lines and what they come to."""

    lines: tuple[LineView, ...]
    subtotal: str
    shipping: str
    total: str
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FormView:
    """A form as the shopper left it: values and problems by field, and one problem of the whole."""

    values: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderView:
    """An order that was placed."""

    id: str
    bill: BillView
    name: str
    email: str
    tracking_id: str
    last_digits: str
    trace_id: str
