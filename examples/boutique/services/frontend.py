"""The front end: the shop's pages over HTTP, made from what the other services answer.

A page needs no script; every change is a form, answered by a redirect.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlsplit

import grpc

from examples.boutique.services import order_form, tracing
from examples.boutique.services.runtime import serve_http
from examples.boutique.services.storefront import DEFAULT_CURRENCY, Storefront
from examples.boutique.web import layout, shelves, till
from examples.boutique.web.layout import Frame
from examples.boutique.web.views import FormView

MAX_FORM_BYTES = 16_384
HTML = "text/html; charset=utf-8"
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_USER = re.compile(r"[\w-]{16,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a shopper; `form` is empty but for POST."""

    path: str
    user_id: str
    currency: str
    form: Mapping[str, str]
    came_from: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back; a location makes it a redirect."""

    status: int = 200
    body: bytes = b""
    content_type: str = HTML
    location: str = ""
    currency: str = ""


class FrontEnd:
    """A method for each page."""

    def __init__(self, store: Storefront) -> None:
        self._store = store
        self._routes: tuple[tuple[str, re.Pattern[str], Callable[[Request, str], Answer]], ...] = (
            ("GET", re.compile(r"/()"), self.home),
            ("GET", re.compile(r"/product/([\w-]{1,64})"), self.product),
            ("GET", re.compile(r"/cart()"), self.cart),
            ("POST", re.compile(r"/cart()"), self.add),
            ("POST", re.compile(r"/cart/change()"), self.change),
            ("POST", re.compile(r"/currency()"), self.choose_currency),
            ("GET", re.compile(r"/checkout()"), self.checkout),
            ("POST", re.compile(r"/checkout()"), self.pay),
            ("GET", re.compile(r"/orders/([\w-]{1,32})"), self.order),
        )

    def answer(self, method: str, request: Request) -> Answer:
        """Find the page, and say plainly when a service behind it does not answer."""
        try:
            for verb, pattern, page in self._routes:
                found = pattern.fullmatch(request.path)
                if found and verb == method:
                    return page(request, found[1])
        except grpc.RpcError as error:
            return _explain(error)
        return _not_found()

    def home(self, request: Request, _: str) -> Answer:
        """All products."""
        frame = self._frame(request)
        return Answer(body=shelves.home_page(frame, self._store.products(frame.currency)))

    def product(self, request: Request, product_id: str) -> Answer:
        """One product."""
        frame = self._frame(request)
        product = self._store.product(product_id, frame.currency)
        others = self._store.recommended(product_id, frame.currency)
        return Answer(body=shelves.product_page(frame, product, self._store.reviews(product_id), others))

    def cart(self, request: Request, _: str) -> Answer:
        """The cart."""
        frame = self._frame(request)
        return Answer(body=till.cart_page(frame, self._store.bill(request.user_id, frame.currency)))

    def add(self, request: Request, _: str) -> Answer:
        """Put a product into the cart."""
        quantity = _quantity(request)
        if quantity is None:
            return _bad_request("The quantity must be a number from 1 to 20.")
        self._store.add(request.user_id, request.form.get("product", ""), quantity)
        return Answer(status=303, location="/cart")

    def change(self, request: Request, _: str) -> Answer:
        """Set or remove a line of the cart."""
        quantity = 0 if request.form.get("remove") else _quantity(request)
        if quantity is None:
            return _bad_request("The quantity must be a number from 1 to 20.")
        self._store.change(request.user_id, request.form.get("product", ""), quantity)
        return Answer(status=303, location="/cart")

    def choose_currency(self, request: Request, _: str) -> Answer:
        """Show prices in another currency from now on."""
        return Answer(status=303, location=request.came_from, currency=request.form.get("currency", ""))

    def checkout(self, request: Request, _: str) -> Answer:
        """The form."""
        return self._form(request, FormView(values=order_form.EXAMPLE), 200)

    def pay(self, request: Request, _: str) -> Answer:
        """Place the order, or show the form again with what is wrong."""
        problems = order_form.find_problems(request.form)
        if problems:
            problem = "Please correct the fields marked below."
            return self._form(request, FormView(values=request.form, problems=problems, problem=problem), 422)
        order = order_form.read_order(request.user_id, request.currency, request.form)
        try:
            order_id = self._store.place_order(order)
        except grpc.RpcError as error:
            if error.code() not in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}:
                raise
            problem = f"The order was not placed: {error.details()}."
            return self._form(request, FormView(values=request.form, problem=problem), 422)
        return Answer(status=303, location=f"/orders/{order_id}")

    def order(self, request: Request, order_id: str) -> Answer:
        """The receipt. It is read from memory, so that a checkout is the last thing traced."""
        order = self._store.order(request.user_id, order_id)
        return Answer(body=till.order_page(Frame(), order)) if order else _not_found()

    def _frame(self, request: Request) -> Frame:
        return self._store.frame(request.user_id, request.currency)

    def _form(self, request: Request, form: FormView, status: int) -> Answer:
        frame = self._frame(request)
        bill = self._store.bill(request.user_id, frame.currency)
        if not bill.lines:
            return Answer(status=303, location="/cart")
        return Answer(status=status, body=till.checkout_page(frame, bill, form))


def _quantity(request: Request) -> int | None:
    text = request.form.get("quantity", "1")
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text) and 1 <= int(text) <= 20 else None


def _not_found() -> Answer:
    return Answer(status=404, body=till.problem_page("Not here", "There is no such page in this shop."))


def _bad_request(text: str) -> Answer:
    return Answer(status=400, body=till.problem_page("That did not work", text))


def _explain(error: grpc.RpcError) -> Answer:
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return _not_found()
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return _bad_request(f"{error.details()}.")
    print(f"a service did not answer: {error.code().name}: {error.details()}", flush=True)
    text = "Part of the shop does not answer just now. This page tries again by itself."
    return Answer(status=503, body=till.problem_page("One moment, please", text, refresh_s=3))


class Handler(BaseHTTPRequestHandler):
    """Reads requests, keeps the shopper's cookies, writes answers."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True  # head and body are two writes
    front_end: FrontEnd

    def do_GET(self) -> None:
        """Answer a page, the style sheet or the health check."""
        path = urlsplit(self.path).path
        if path == "/style.css":
            self._write(Answer(body=layout.style(), content_type="text/css; charset=utf-8"))
        elif path == "/icon.svg":
            self._write(Answer(body=layout.drawing("gate").encode(), content_type="image/svg+xml"))
        elif path == "/healthz":
            self._write(Answer(body=b"ok\n", content_type="text/plain"))
        else:
            self._serve("GET", path, {})

    def do_POST(self) -> None:
        """Answer a form."""
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_FORM_BYTES:
            self.close_connection = True
            self._write(_bad_request("The form is larger than any of this shop's."))
            return
        body = self.rfile.read(int(length)).decode("utf-8", "replace")
        self._serve("POST", urlsplit(self.path).path, dict(parse_qsl(body, keep_blank_values=True)))

    def _serve(self, method: str, path: str, form: Mapping[str, str]) -> None:
        tracing.receive(self.headers.items())
        cookies = self._cookies()
        user_id = cookies.get("shopper", "")
        new = "" if _USER.fullmatch(user_id) else secrets.token_urlsafe(16)
        request = Request(
            path=path,
            user_id=new or user_id,
            currency=cookies.get("currency", DEFAULT_CURRENCY),
            form=form,
            came_from=self._came_from(),
        )
        self._write(self.front_end.answer(method, request), new_shopper=new)

    def _cookies(self) -> dict[str, str]:
        try:
            jar = SimpleCookie(self.headers.get("cookie", ""))
        except CookieError:
            return {}
        return {name: morsel.value for name, morsel in jar.items()}

    def _came_from(self) -> str:
        """The page of ours that the form was on; never another site's, and never a path that reads as one."""
        referer = urlsplit(self.headers.get("referer", ""))
        ours = referer.netloc == self.headers.get("host", "") and re.fullmatch(r"/[\w/-]*", referer.path)
        return referer.path if ours and not referer.path.startswith("//") else "/"

    def _write(self, answer: Answer, *, new_shopper: str = "") -> None:
        self.send_response(answer.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("content-type", answer.content_type)
        self.send_header("content-length", str(len(answer.body)))
        if answer.location:
            self.send_header("location", answer.location)
        if new_shopper:
            self.send_header("set-cookie", f"shopper={new_shopper}; Path=/; HttpOnly; SameSite=Lax")
        if re.fullmatch(r"[A-Z]{3}", answer.currency):
            self.send_header("set-cookie", f"currency={answer.currency}; Path=/; HttpOnly; SameSite=Lax")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing of each request."""


if __name__ == "__main__":
    Handler.front_end = FrontEnd(Storefront())
    serve_http("frontend", Handler)
