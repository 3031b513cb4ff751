"""Reads the checkout form: what is missing or wrong, field by field, or the order to place."""

import re
from collections.abc import Mapping

from examples.boutique.api import shop_pb2

# Filled in beforehand: the shop sells nothing, and a demonstration should not ask for typing.
EXAMPLE = {
    "name": "Robin Wick",
    "email": "robin@example.com",
    "street": "Torgasse 4",
    "postcode": "10115",
    "city": "Berlin",
    "country": "Germany",
    "card": "4242 4242 4242 4242",
    "expiry": "12/39",
    "cvc": "123",
}
FIELDS = tuple(EXAMPLE)
MAX_FIELD_CHARS = 200

_EXPIRY = re.compile(r"(0[1-9]|1[0-2])\s*/\s*(?:20)?([0-9]{2})")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_MISSING = {
    "name": "Enter your name",
    "email": "Enter your email address",
    "street": "Enter your street and number",
    "postcode": "Enter your postcode",
    "city": "Enter your city",
    "country": "Enter your country",
    "card": "Enter the card's number",
    "expiry": "Enter the month that the card expires in",
    "cvc": "Enter the security code",
}


def find_problems(values: Mapping[str, str]) -> dict[str, str]:
    """What to correct, by field; empty when the form is complete."""
    problems = {name: _MISSING[name] for name in FIELDS if not values.get(name, "").strip()}
    problems |= {name: "Enter at most 200 characters" for name in FIELDS if _is_long(values.get(name, ""))}
    if "email" not in problems and not _EMAIL.fullmatch(values["email"].strip()):
        problems["email"] = "Enter an email address such as robin@example.com"
    if "expiry" not in problems and not _EXPIRY.fullmatch(values["expiry"].strip()):
        problems["expiry"] = "Enter month and year such as 12/39"
    if "cvc" not in problems and not re.fullmatch(r"[0-9]{3,4}", values["cvc"].strip()):
        problems["cvc"] = "Enter the three or four digits on the card"
    return problems


def read_order(user_id: str, currency: str, values: Mapping[str, str]) -> shop_pb2.PlaceOrderRequest:
    """The order that a form without problems asks for."""
    found = _EXPIRY.fullmatch(values["expiry"].strip())
    if found is None:
        raise ValueError("expected a form without problems")
    address = {name: values[name].strip() for name in FIELDS[:6]}
    return shop_pb2.PlaceOrderRequest(
        user_id=user_id,
        currency=currency,
        address=shop_pb2.Address(**address),
        card=shop_pb2.Card(
            number=values["card"].strip(),
            cvc=values["cvc"].strip(),
            expiry_month=int(found[1]),
            expiry_year=2000 + int(found[2]),
        ),
    )


def _is_long(value: str) -> bool:
    return len(value) > MAX_FIELD_CHARS
