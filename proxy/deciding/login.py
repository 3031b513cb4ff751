"""Logins of browsers (`middleware.http.oauth2`): RFC 6749 §4.1 with a state that only the browser which began it can bring back. Pure.

What a login began with is kept by the browser, in a sealed cookie: whoever only asks takes up no memory here.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import parse_qs, urlencode

from msgspec import Struct

from policies.rules.pipelines import OAuth2
from proxy.contract.head import Header, RequestHead

LOGIN_S: Final = 600  # from the first redirect to the provider's answer
_MAX_FIELDS: Final = 64  # of a query that is read
_MAX_PATH_BYTES: Final = 2_048  # to come back to; a browser keeps 4 KiB in a cookie


class Callback(Struct, frozen=True):
    """What the provider sent a browser back with, and where it was to go. error: in place of a code (RFC 6749 §4.1.2.1)."""

    code: str
    path: str
    error: str = ""


class Logins(Struct, frozen=True):
    """Begins and recognises logins. `key`: this process's own; `nonce`: fresh secrets for URLs; `now`: epoch seconds."""

    key: bytes
    nonce: Callable[[], str]
    now: Callable[[], float]

    def begin(self, one: OAuth2, head: RequestHead) -> tuple[Header, ...]:
        """The fields that send a browser to the provider."""
        nonce = self.nonce()
        # Two slashes, or one and a backslash, would name another host to browsers (WHATWG URL, "relative slash state").
        path = b"/" + head.target.lstrip(b"/\\") if len(head.target) <= _MAX_PATH_BYTES else b"/"
        kept = f"{nonce}.{int(self.now()) + LOGIN_S}.{_encode(path)}"
        asked = {
            "client_id": one.client_id,
            "redirect_uri": one.redirect_url,
            "response_type": "code",
            "scope": " ".join(one.scopes),
            "state": nonce,
            "access_type": "offline",
        }
        joint = "&" if "?" in one.auth_url else "?"
        location = one.auth_url + joint + urlencode({name: text for name, text in asked.items() if text})
        cookie = set_cookie(one, "login", f"{kept}.{self._seal(one, kept)}", LOGIN_S)
        return ((b"location", location.encode()), cookie, *NO_STORE)

    def callback(self, one: OAuth2, head: RequestHead) -> Callback | None:
        """The end of a login that this browser began here; None for any other request."""
        try:
            asked = parse_qs(head.query.decode("latin-1"), max_num_fields=_MAX_FIELDS)
        except ValueError:
            return None  # no provider sends so many
        state = asked.get("state", [""])[0]
        sealed = read_cookie(one, "login", head.headers)
        if not state or sealed is None:
            return None
        kept, _, seal = sealed.rpartition(".")
        if not hmac.compare_digest(seal, self._seal(one, kept)):
            return None
        nonce, ends_at, path = kept.split(".")
        if not hmac.compare_digest(nonce.encode(), state.encode()) or int(ends_at) < self.now():
            return None
        code, error = asked.get("code", [""])[0], asked.get("error", [""])[0]
        if not code and not error:
            return None
        return Callback(code, _decode(path).decode("latin-1"), error)

    def _seal(self, one: OAuth2, kept: str) -> str:
        return _encode(hmac.digest(self.key, f"{one.name}.{one.client_id}.{kept}".encode(), "sha256"))


NO_STORE: Final[tuple[Header, ...]] = ((b"cache-control", b"no-store"),)


def set_cookie(one: OAuth2, what: str, value: str, life_s: int) -> Header:
    """A cookie that scripts can't read, and other sites' pages can't have sent but by a link (RFC 6265bis §5.6)."""
    secure = "; Secure" if one.is_secure else ""
    text = f"{_cookie_name(one, what)}={value}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Lax{secure}"
    return b"set-cookie", text.encode()


def read_cookie(one: OAuth2, what: str, headers: Sequence[Header]) -> str | None:
    """Its value; None where it is not there once."""
    wanted = _cookie_name(one, what)
    pairs = (
        item.strip().partition(b"=")
        for name, data in headers
        if name == b"cookie"
        for item in data.split(b";")
    )
    found = [value.decode("latin-1") for name, _, value in pairs if name.decode("latin-1") == wanted]
    return found[0] if len(found) == 1 and found[0].isascii() else None


def _cookie_name(one: OAuth2, what: str) -> str:
    mark = hashlib.sha256(f"{one.name} {one.client_id}".encode()).hexdigest()[:12]
    return f"{'__Host-' if one.is_secure else ''}postern-{what}-{mark}"


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
