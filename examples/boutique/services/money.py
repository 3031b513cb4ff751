"""Arithmetic on amounts of money, exact, in one currency at a time."""

from collections.abc import Iterable

from examples.boutique.api.shop_pb2 import Money

# Digits after the point in a price; 2 where nothing else is said.
_DIGITS = {"JPY": 0}
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CHF": "CHF\u00a0", "SEK": "SEK\u00a0"}


class CurrencyMismatchError(ValueError):
    """Amounts of different currencies met where one was expected."""


def total(amounts: Iterable[Money], currency: str) -> Money:
    """Add up amounts that are all in `currency`. Raises: CurrencyMismatchError."""
    micros = 0
    for amount in amounts:
        if amount.currency != currency:
            raise CurrencyMismatchError(f"expected {currency}, got {amount.currency}")
        micros += amount.micros
    return Money(currency=currency, micros=micros)


def times(amount: Money, quantity: int) -> Money:
    """The price of `quantity` pieces."""
    return Money(currency=amount.currency, micros=amount.micros * quantity)


def rounded(micros: float, currency: str) -> Money:
    """The nearest amount that can be paid in a currency: whole cents, or whole yen."""
    step = 10 ** (6 - _DIGITS.get(currency, 2))
    return Money(currency=currency, micros=round(micros / step) * step)


def price_text(amount: Money) -> str:
    """An amount as shoppers read it: `€1,240.00`, `¥980`."""
    digits = _DIGITS.get(amount.currency, 2)
    sign = _SIGNS.get(amount.currency, f"{amount.currency}\u00a0")
    return f"{sign}{amount.micros / 1_000_000:,.{digits}f}"
