"""Tells the app from a page in a browser, which reaches this machine's ports as well: whose Host is ours, whose Origin is foreign. Pure.

A page can't make a browser leave out Origin (RFC 6454 §7) nor send what the Fetch Standard §4.8 wants a preflight for; so a request with
a gateway's own fields was not sent by a page, unless we allowed it. A page whose name was rebound to our address looks as if it were
of our own origin: the Host check is what finds that.
"""

import re

from msgspec import Struct

from proxy.contract.fields import carries
from proxy.contract.head import Headers
from proxy.contract.plan import Edit, Edits, Op
from proxy.contract.recording import RecordingHead
from proxy.deciding.callee import BEYOND_PAGES_SET, FOREIGN_SITE_SET, PREFLIGHT_SET
from telemetry.hosts import is_host_known, is_own_origin, matches, origin_of, split_authority, stranger

# Patterns as `proxy.contract.plan.carries` reads them: fields that no page can send without a preflight.
BEYOND_PAGES = frozenset(
    {
        b"dapr-*",
        b"forwarded",
        b"via",
        b"x-forwarded-*",
        b"x-request-id",
        b"traceparent",
        b"authorization: bearer",
        b"content-type: application/json",
        b"content-type: application/grpc*",
        b"content-type: application/x-protobuf",
        b"content-type: application/octet-stream",
    }
)
PREFLIGHT = frozenset({b"access-control-request-method"})
PAGE_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})  # any other wants a preflight
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,256}")
_EXPOSED = b"grpc-status, grpc-message, postern-error, traceparent"
_MAX_AGE = b"600"  # seconds that a browser may keep a leave
_DAPRS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_VARY = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class Browsers(Struct, frozen=True, kw_only=True):
    """What is admitted besides the app. `hosts`, `origins`: patterns with at most one `*`; loopback names and IP literals always pass.

    origins_open: as daprd, every origin is let in: those that are not listed get no leave to read, and without a list CORS is left to
    the app.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    origins_open: bool = False

    def host_refused(self, authority: str) -> str | None:
        """Why a request with this Host is not answered, or None."""
        if is_host_known(authority, self.hosts):
            return None
        host = split_authority(authority)[0]
        return (
            f"host {authority!r} is not known to be this machine: use localhost, a name below it such as cart.localhost "
            f"or an IP address, or start this proxy with --allowed-hosts={host}"
        )

    def refused(self, head: RecordingHead) -> str | None:
        """Why the page that sent this is not answered, or None."""
        if self.origins_open:
            return None
        origin = head.naming(b"origin")
        if origin is None:
            if not head.header_is(b"sec-fetch-site", FOREIGN_SITE_SET) or "*" in self.origins:
                return None
        elif self.listed(origin) or is_own_origin(origin, head.authority()):
            return None
        if head.protocol() != "websocket" and (
            head.method() not in PAGE_METHODS or head.carries(BEYOND_PAGES_SET)
        ):
            return None
        return _refusal(origin)

    def is_preflight(self, head: RecordingHead) -> bool:
        """Whether a browser asks for leave here that it may get (Fetch Standard §4.8)."""
        if not self.origins or head.protocol() == "grpc" or head.method() != "OPTIONS":
            return False
        origin = head.naming(b"origin")
        is_ours = self.origins_open or (origin is not None and self.listed(origin))
        return is_ours and head.carries(PREFLIGHT_SET)

    def listed(self, origin: str) -> bool:
        """Whether --allowed-origins has it."""
        return matches(origin, self.origins)

    def leave(self, head: RecordingHead) -> Headers:
        """The fields of the answer to a preflight: without leave for an origin or, as daprd, a method that is not listed."""
        origin = head.naming(b"origin")
        asked = head.naming(b"access-control-request-headers") or ""
        verb = head.naming(b"access-control-request-method") or ""
        names = asked.encode("latin-1") if _NAMES.fullmatch(asked) else b"*, authorization"
        methods = list(_DAPRS_METHODS)
        if self.origins_open and (origin is None or not self.listed(origin) or verb.upper() not in methods):
            return ((b"vary", _VARY),)
        if not self.origins_open:
            methods.append("OPTIONS")
            if verb not in methods and verb.isascii() and verb.isalpha():
                methods.append(verb)
        return (
            (b"access-control-allow-origin", self._granted(origin)),
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", names),
            (b"access-control-allow-private-network", b"true"),
            (b"access-control-max-age", _MAX_AGE),
            (b"vary", _VARY),
        )

    def edits(self, origin: str | None) -> Edits:
        """What is written into an answer, so that a listed origin's page may read it; the app's own word on this gives way."""
        if not self.origins:
            return ()
        vary = (Edit(op=Op.LIST, name=b"vary", data=b"Origin"),)
        if origin is None or not self.listed(origin):
            return vary
        exposed = Edit(op=Op.LIST, name=b"access-control-expose-headers", data=_EXPOSED)
        granted = self._granted(origin)
        return (*vary, Edit(op=Op.SET, name=b"access-control-allow-origin", data=granted), exposed)

    def _granted(self, origin: str | None) -> bytes:
        # For `*` never the origin itself: with an app that allows credentials, that would allow them to everybody.
        return b"*" if origin is None or "*" in self.origins else origin.encode("latin-1")


def as_headers(edits: Edits) -> Headers:
    """The same fields for an answer of our own."""
    return tuple((edit.name, edit.data) for edit in edits)


def refused_page(
    browsers: Browsers, authority: str, headers: Headers, *, names: tuple[str, ...] | None, scraped: bool
) -> str | None:
    """Why a request to the metrics or public port is not answered, or None. `names`, `scraped`: see `telemetry.hosts.stranger`."""
    what = stranger(
        authority, headers, hosts=browsers.hosts, origins=browsers.origins, names=names, scraped=scraped
    )
    if what == "host":
        return browsers.host_refused(authority.lower())
    if what is None or browsers.origins_open or carries(headers, BEYOND_PAGES):
        return None
    return _refusal(origin_of(headers))


def _refusal(origin: str | None) -> str:
    who = "a page of another site (Sec-Fetch-Site)" if origin is None else f"a page of origin {origin!r}"
    flag = "'*'" if origin is None or origin == "null" else origin
    return (
        f"{who} may not call this: --allowed-origins={flag} lets it in; a gateway that passes a browser's headers on "
        "needs that too, unless it adds one of its own, such as x-forwarded-for, x-request-id or traceparent"
    )
