"""Who may ask the dashboard: whoever has the link that it printed, from its own page, under a name that nobody can rebind. Pure.

The page's files hold nothing secret and are served without the token, which is in the link's fragment and reaches no server; all that is
told of the mesh needs it. Headers forbid frames, other sites' scripts and styles, and any that stand in the page itself.
"""

import hmac
from collections.abc import Iterable
from typing import Literal

from telemetry.hosts import stranger

Fields = tuple[tuple[bytes, bytes], ...]
Refusal = Literal["host", "origin", "token"]

_SCHEME = b"bearer "
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Fields = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)


def refusal(authority: str, headers: Iterable[tuple[bytes, bytes]], *, token: str | None) -> Refusal | None:
    """Why a request is refused; None: it is answered. token: what it must carry; None: it asks for a file of the page."""
    fields = tuple(headers)
    if not authority:
        return "host"
    found = stranger(authority, fields, names=None, scraped=False)
    if found == "host":
        return "host"
    if found == "origin" and (token is not None or not _is_visit(fields)):
        return "origin"
    return None if token is None or is_token(fields, token) else "token"


def is_token(headers: Fields, token: str) -> bool:
    """Whether the Authorization header has the token; takes as long whatever it has (RFC 6750 §2.1)."""
    given = next((data for name, data in headers if name == b"authorization"), b"")
    scheme, value = given[: len(_SCHEME)].lower(), given[len(_SCHEME) :]
    return hmac.compare_digest(value, token.encode()) and scheme == _SCHEME


def _is_visit(headers: Fields) -> bool:
    """Whether somebody follows a link to the page, as from a terminal in a browser: no page can read what such a request gets."""
    told = dict(headers)
    return told.get(b"sec-fetch-mode") == b"navigate" and told.get(b"sec-fetch-dest") == b"document"
