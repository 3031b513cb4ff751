"""The frame of every page: head, header, footer; and the drawings. Text from outside is escaped where it is put in."""

from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

ART = Path(__file__).with_name("art")
STYLE = Path(__file__).with_name("style.css")
NAME = "Wicket &amp; Co."


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the header shows. No currencies: prices on this page are not to be changed."""

    currency: str = ""
    currencies: tuple[str, ...] = ()
    cart_count: int = 0


@cache
def drawing(name: str) -> str:
    """An inline SVG by name; empty for a product that nobody has drawn."""
    file = ART / f"{name}.svg"
    return file.read_text(encoding="utf-8") if name.isalnum() and file.exists() else ""


@cache
def style() -> bytes:
    """The style sheet."""
    return STYLE.read_bytes()


def picture(product_id: str) -> str:
    """A product's drawing on its own ground."""
    return f'<div class="art art-{escape(product_id)}">{drawing(product_id)}</div>'


def page(title: str, frame: Frame, body: str, *, refresh_s: int = 0) -> bytes:
    """A whole document around `body`, which is markup."""
    again = f'<meta http-equiv="refresh" content="{refresh_s}">' if refresh_s else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{again}
<title>{escape(title)} · {NAME}</title>
<link rel="stylesheet" href="/style.css"><link rel="icon" href="/icon.svg" type="image/svg+xml">
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header class="top"><div>
<a class="brand" href="/">{drawing("gate")}<span>{NAME}</span></a>
{_currencies(frame)}
<a class="basket" href="/cart" aria-label="Cart, {_items(frame.cart_count)}">
{drawing("basket")}<span>Cart</span> <b>{frame.cart_count}</b></a>
</div></header>
<main id="content">
{body}
</main>
<footer class="bottom"><p>{NAME} is a demonstration shop. Nothing here is for sale, and no card is charged.</p></footer>
</body>
</html>
""".encode()


def _currencies(frame: Frame) -> str:
    if not frame.currencies:
        return ""
    buttons = "".join(
        f'<button name="currency" value="{escape(code)}" aria-pressed="{str(code == frame.currency).lower()}">'
        f"{escape(code)}</button>"
        for code in frame.currencies
    )
    return f'<form class="currencies" method="post" action="/currency" aria-label="Currency">{buttons}</form>'


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"
