"""The reviews service, over plain HTTP and JSON: what shoppers say, and how many bought what."""

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from examples.boutique.services.runtime import serve_http

REVIEWS_FILE = Path(__file__).with_name("reviews.json")
MAX_BODY_BYTES = 16_384
MAX_PRODUCTS = 1_000

_REVIEWS_PATH = re.compile(r"/products/([\w-]{1,64})/reviews")


class Shelf:
    """Reviews as read at the start, and purchases since; `_lock` guards `_bought`."""

    def __init__(self) -> None:
        self._reviews = json.loads(REVIEWS_FILE.read_text(encoding="utf-8"))
        self._bought: Counter[str] = Counter()
        self._lock = threading.Lock()

    def about(self, product_id: str) -> dict[str, object]:
        """What is known of a product; empty for an unknown one."""
        with self._lock:
            return {"reviews": self._reviews.get(product_id, []), "bought": self._bought[product_id]}

    def count(self, product_ids: list[str]) -> None:
        """Add one purchase to each."""
        with self._lock:
            known = (name for name in product_ids if name in self._bought or len(self._bought) < MAX_PRODUCTS)
            self._bought.update(list(known))


SHELF = Shelf()


class Handler(BaseHTTPRequestHandler):
    """GET /products/<id>/reviews, POST /purchases, GET /healthz."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True  # head and body are two writes

    def do_GET(self) -> None:
        """Answer reviews and health."""
        found = _REVIEWS_PATH.fullmatch(self.path)
        if found:
            self._answer(200, SHELF.about(found[1]))
        elif self.path == "/healthz":
            self._answer(200, {"status": "ok"})
        else:
            self._answer(404, {"error": "expected /products/<id>/reviews"})

    def do_POST(self) -> None:
        """Count purchases."""
        if self.path != "/purchases":
            self._answer(404, {"error": "expected /purchases"})
            return
        product_ids = self._read_product_ids()
        if product_ids is None:
            self.close_connection = True
            self._answer(400, {"error": 'expected {"productIds": [text, …]} of at most 16 KiB'})
            return
        SHELF.count(product_ids)
        self._answer(200, {"counted": len(product_ids)})

    def _read_product_ids(self) -> list[str] | None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return None
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            return None
        ids = body.get("productIds") if isinstance(body, dict) else None
        return ids if isinstance(ids, list) and all(isinstance(name, str) for name in ids) else None

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing of each request."""


if __name__ == "__main__":
    serve_http("reviews", Handler)
