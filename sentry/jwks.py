"""Key sets that token issuers publish, and where they are read from: a file, inline JSON, HTTPS, the join key.

Owns parsing, the allow-list of keys, and when a source is read again. Symmetric keys are never accepted, so no token can
be signed with a public key's bytes; the key says which algorithm verifies a token, not the token.
"""

import asyncio
import base64
import binascii
import json
import logging
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from sentry.errors import SettingsError, StoreError
from sentry.private_files import read_file
from telemetry.errors import WebProxyError
from telemetry.web_proxies import NO_PROXIES, WebProxies

if TYPE_CHECKING:
    from http.client import HTTPSConnection

    import jwt

MAX_SET_BYTES: Final = 1024 * 1024
_MAX_KEYS: Final = 64
_LOG: Final = logging.getLogger("sentry")
_BY_CURVE: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


class VerificationKey(Struct, frozen=True, kw_only=True):
    """One key and the only algorithm that it verifies."""

    algorithm: str
    key: "jwt.PyJWK"


class SourceError(Exception):
    """The set can't be read at the moment; what was read before stays in force."""


class KeySource(Protocol):
    """Where a key set comes from."""

    @property
    def name(self) -> str:
        """For logs; holds no secret."""

    async def read(self) -> bytes:
        """The set as JSON. Raises SourceError."""


def parse_set(content: bytes) -> Mapping[str, VerificationKey]:
    """Keys by `kid`; those that can't verify tokens here (no kid, symmetric, weak, unknown) are skipped.

    Raises: SourceError when the document is not a key set.
    """
    try:
        document: Any = json.loads(content)
        members = document["keys"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SourceError("not a JSON Web Key Set") from error
    if not isinstance(members, list) or len(members) > _MAX_KEYS:
        raise SourceError(f"expected a list of at most {_MAX_KEYS} keys")
    keys: dict[str, VerificationKey] = {}
    for member in members:
        parsed = _parse_key(member)
        if parsed is not None:
            keys[str(member["kid"])] = parsed
    return keys


def _parse_key(member: object) -> VerificationKey | None:
    import jwt  # noqa: PLC0415 -- 50 ms; the server loads it once it listens

    if not isinstance(member, dict) or not isinstance(member.get("kid"), str) or not member["kid"]:
        return None
    if member.get("use", "sig") not in {"sig", "jwt-svid"}:
        return None
    algorithm = _algorithm(member)
    if algorithm is None:
        return None
    try:
        key = jwt.PyJWK(member, algorithm=algorithm)
        bits = getattr(key.key, "key_size", 256)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if algorithm in _RSA and not 2048 <= bits <= 4096:
        return None
    return VerificationKey(algorithm=algorithm, key=key)


def _algorithm(member: Mapping[str, Any]) -> str | None:
    stated = member.get("alg")
    if member.get("kty") == "RSA":
        return str(stated) if stated in _RSA else ("RS256" if stated is None else None)
    expected = _BY_CURVE.get(str(member.get("crv")))
    return expected if stated in {None, expected} else None


class FileSource(Struct, frozen=True, kw_only=True):
    """A key set in a file, read anew at each refresh."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    async def read(self) -> bytes:
        """Read the file."""
        try:
            return read_file(self.path.resolve(), is_secret=False, allow_loose=True)
        except (OSError, StoreError) as error:
            raise SourceError(str(error)) from error


class CallSource(Struct, frozen=True, kw_only=True):
    """A key set from a function, such as `join.jwks` of a runtime root, or fixed JSON."""

    name: str
    call: Callable[[], Any]

    async def read(self) -> bytes:
        """Call it."""
        try:
            return json.dumps(self.call()).encode()
        except (OSError, StoreError) as error:
            raise SourceError(str(error)) from error


class HttpsSource(Struct, frozen=True, kw_only=True):
    """A key set behind an https address; redirects are refused, so that nobody else chooses what is fetched."""

    url: str
    timeout_s: float = 10.0
    ca_file: str | None = None
    ca_pem: str | None = None
    proxies: WebProxies = NO_PROXIES

    @property
    def name(self) -> str:
        """The address without query."""
        return self.url.partition("?")[0]

    async def read(self) -> bytes:
        """Fetch it in a thread, with a deadline."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asyncio.to_thread(self._fetch)
        except (OSError, TimeoutError, ValueError, WebProxyError) as error:
            raise SourceError(f"{self.name}: {error}") from error

    def _fetch(self) -> bytes:
        from http.client import HTTPException  # noqa: PLC0415 -- 20 ms, only for this source

        parts = urlsplit(self.url)
        connection = self._connection(parts.hostname or "", parts.port)
        try:
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            response = connection.getresponse()
            body = response.read(MAX_SET_BYTES + 1)
            if response.status != 200 or len(body) > MAX_SET_BYTES:
                raise ValueError(
                    f"expected status 200 and at most {MAX_SET_BYTES} bytes, got {response.status}"
                )
        except HTTPException as error:
            raise ValueError(f"no HTTP answer: {error!r}") from error
        else:
            return body
        finally:
            connection.close()

    def _connection(self, host: str, port: int | None) -> "HTTPSConnection":
        """Not opened yet."""
        from http.client import HTTPSConnection  # noqa: PLC0415 -- as above

        context = ssl.create_default_context(cafile=self.ca_file, cadata=self.ca_pem)
        proxy = self.proxies.for_url(self.url)
        if proxy is None:
            return HTTPSConnection(host, port, timeout=self.timeout_s, context=context)
        connection = HTTPSConnection(proxy.host, proxy.port, timeout=self.timeout_s, context=context)
        credentials = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        connection.set_tunnel(host, port, headers=credentials)
        return connection


def source_of(
    text: str, *, ca: str | None = None, timeout_s: float = 10.0, proxies: WebProxies = NO_PROXIES
) -> KeySource:
    """The source that a configuration's `source` names: https address, inline JSON (plain or base64), or a path.

    proxies: between us and an address. Raises: SettingsError.
    """
    if text.startswith("http://"):
        raise SettingsError(
            (f"token validator source {text!r}: expected https, because its keys authenticate workloads",)
        )
    if text.startswith("https://"):
        is_pem = ca is not None and "-----BEGIN" in ca
        return HttpsSource(
            url=text,
            timeout_s=timeout_s,
            ca_pem=ca if is_pem else None,
            ca_file=None if is_pem else ca,
            proxies=proxies,
        )
    inline = _inline(text)
    if inline is not None:
        return CallSource(name="inline", call=lambda: inline)
    return FileSource(path=Path(text))


def _inline(text: str) -> object:
    for candidate in (text, _unbase64(text)):
        if candidate is not None and candidate.lstrip().startswith("{"):
            try:
                return json.loads(candidate)
            except ValueError as error:
                raise SettingsError(
                    (f"token validator source: inline key set is not valid JSON: {error}",)
                ) from error
    return None


def _unbase64(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


class RefreshRules(Struct, frozen=True, kw_only=True):
    """When a set is read again: at `max_age_s`, and for an unknown kid at most every `min_interval_s`."""

    max_age_s: float = 600.0
    min_interval_s: float = 1.0


class KeySet:
    """The keys of one source. State (`_keys`, `_read_at`): a failed refresh keeps what was read before."""

    def __init__(
        self,
        source: KeySource,
        *,
        clock: Callable[[], float],
        rules: RefreshRules | None = None,
        max_token_lifetime_s: float | None = 600.0,
        grants_control_plane: bool = False,
        stamp: Callable[[], object] = lambda: None,
    ) -> None:
        """`clock` is monotonic; `max_token_lifetime_s` is what this set's tokens may live from `iat` to `exp`, None as long as they say.

        `grants_control_plane`: whether these tokens may prove the control plane's reserved ids. `stamp` is looked at before each use:
        where it has changed, the keys of before are forgotten and the source is read again, which may find that it is no longer to be
        believed.
        """
        self._source = source
        self._clock = clock
        self._rules = rules or RefreshRules()
        self.max_token_lifetime_s = max_token_lifetime_s
        self.grants_control_plane = grants_control_plane
        self._keys: Mapping[str, VerificationKey] = {}
        self._read_at = float("-inf")
        self._stamp = stamp
        self._stamped: object = None
        self._lock = asyncio.Lock()
        self.last_error: str | None = None

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    async def find(self, kid: str) -> VerificationKey | None:
        """The key named `kid`, reloaded if it is unknown or the set is old; None if there is none."""
        async with self._lock:
            if (stamp := self._stamp()) != self._stamped:
                self._keys, self._read_at, self._stamped = {}, float("-inf"), stamp
            age = self._clock() - self._read_at
            if age > self._rules.max_age_s or (kid not in self._keys and age >= self._rules.min_interval_s):
                await self._refresh()
            return self._keys.get(kid)

    async def _refresh(self) -> None:
        self._read_at = self._clock()
        try:
            self._keys = parse_set(await self._source.read())
            self.last_error = None
        except SourceError as error:
            self.last_error = str(error)
            left = "the old ones stay" if self._keys else "none of their tokens are accepted"
            _LOG.warning("token keys of %s can't be read, %s: %s", self.name, left, error)
