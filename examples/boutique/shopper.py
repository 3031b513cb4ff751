"""A shopper without a screen: opens pages, sends forms, keeps cookies. Knows the shop by its pages only."""

import http.client
import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from examples.boutique.errors import ShopError

ANSWER_S = 20.0

ADDRESS_AND_CARD = {
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the page says after a checkout; the trace is "" if there was none."""

    order_id: str
    trace_id: str


class Shopper:
    """One visitor of the shop at `address` (`host:port`)."""

    def __init__(self, address: str) -> None:
        self._base = f"http://{address}"
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies, urllib.request.ProxyHandler({}))

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page. Raises: OSError."""
        return self._open(urllib.request.Request(self._base + path))

    def post(
        self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and text of the page that a form leads to. Raises: OSError."""
        body = urllib.parse.urlencode(form).encode()
        return self._open(urllib.request.Request(self._base + path, body, dict(headers or {})))

    def is_open(self) -> bool:
        """Whether the shop's first page can be seen."""
        try:
            return self.get("/")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def buy(self, *product_ids: str) -> Receipt:
        """Put products into the cart and pay for them. Raises: ShopError, OSError."""
        for product_id in product_ids:
            _expect("the product's page", self.get(f"/product/{product_id}"))
            _expect("the cart", self.post("/cart", {"product": product_id, "quantity": "1"}))
        _expect("the checkout", self.get("/checkout"))
        page = _expect("the receipt", self.post("/checkout", ADDRESS_AND_CARD))
        return Receipt(order_id=_marked(page, "order"), trace_id=_marked(page, "trace"))

    def _open(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with self._opener.open(request, timeout=ANSWER_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def _expect(what: str, answer: tuple[int, str]) -> str:
    status, page = answer
    if status != 200:
        alert = re.search(r'role="alert">([^<]*)', page)
        raise ShopError(f"{what}: expected 200, got {status}{f': {alert[1]}' if alert else ''}")
    return page


def _marked(page: str, name: str) -> str:
    found = re.search(rf'<code id="{name}">([^<]*)</code>', page)
    return found[1] if found else ""
