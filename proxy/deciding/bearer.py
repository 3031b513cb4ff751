"""Tokens of callers (`middleware.http.bearer`): RFC 6750 on the way in, checked as RFC 7519 by the keys of an issuer (RFC 7517).

PyJWT is loaded with the first key: 30 ms that other sidecars are spared.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

SKEW_S: Final = 300.0  # as Dapr allows in its middleware
MAX_TOKEN_BYTES: Final = 16_384
_MAX_KEYS: Final = 64
_MIN_RSA_BITS: Final = 2_048  # RFC 7518 §3.3
# By the type of key, and its curve: what it may verify. Nothing that a public key could sign, and never `none`.
_ALGORITHMS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
_PUBLIC: Final = frozenset({"kty", "crv", "n", "e", "x", "y"})  # RFC 7518 §6: no member of a private key


class KeysError(ValueError):
    """An answer holds no keys that could verify anything."""


class UnknownKeyError(ValueError):
    """A token names a key that is not among those of its issuer."""


class TokenError(ValueError):
    """A token that does not count, and why."""


class Key(Struct, frozen=True):
    """A public key: its id, and by which algorithms it verifies."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: Any  # of `cryptography`


def read_keys(body: bytes) -> tuple[Key, ...]:
    """The keys of a JWK Set that are for signatures; others are passed over. A set without any withdraws them all. Raises: KeysError."""
    try:
        listed = json.loads(body)["keys"]
        found = [made for one in listed[:_MAX_KEYS] if (made := _key(one)) is not None]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise KeysError("it is not a JWK Set") from error
    if not found and listed:
        raise KeysError("it contains no public key for signatures (RSA of at least 2048 bits, EC or Ed25519)")
    return tuple(found)


def _key(one: object) -> Key | None:
    import jwt  # noqa: PLC0415 - see above

    if not isinstance(one, dict):
        return None
    algorithms = _ALGORITHMS.get((str(one.get("kty")), str(one.get("crv", ""))), ())
    if "alg" in one:
        algorithms = tuple(name for name in algorithms if name == one["alg"])
    is_for_more = one.get("use", "sig") != "sig" or "verify" not in one.get("key_ops", ["verify"])
    if not algorithms or is_for_more:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            public = jwt.PyJWK({name: one[name] for name in one.keys() & _PUBLIC}, algorithms[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if getattr(public, "key_size", _MIN_RSA_BITS) < _MIN_RSA_BITS and one["kty"] == "RSA":
        return None
    kid = one.get("kid")
    return Key(kid if isinstance(kid, str) else None, algorithms, public)


def bearer_token(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The one token of a request's Authorization; None where there is none, several, or something else (RFC 6750 §2.1)."""
    found = [data for name, data in headers if name == b"authorization"]
    if len(found) != 1 or len(found[0]) > MAX_TOKEN_BYTES:
        return None
    scheme, _, token = found[0].partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        return None
    return token.strip().decode("latin-1")


def issuer_of(token: str) -> str:
    """Whom a token says to be of, before anything is verified. Raises: TokenError."""
    import jwt  # noqa: PLC0415 - see above

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenError(str(error)) from error
    return str(claims.get("iss", ""))


def verified(
    token: str,
    keys: Sequence[Key],
    *,
    issuer: str,
    audiences: Sequence[str],
    leeway_s: float = SKEW_S,
    ends: bool = False,
) -> dict[str, Any]:
    """The claims of a token of the issuer, for one of the audiences, and in force by this host's clock.

    ends: one that never expires does not count (RFC 9068 §2.2). Raises: UnknownKeyError; TokenError.
    """
    import jwt  # noqa: PLC0415 - see above

    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenError(str(error)) from error
    kid, algorithm = head.get("kid"), head.get("alg")
    named = [key for key in keys if kid is None or key.kid == kid]
    if not named:
        raise UnknownKeyError(f"its key {kid!r} is not among those of {issuer}")
    fitting = [key for key in named if algorithm in key.algorithms]
    if not fitting:
        raise TokenError(f"its algorithm {algorithm!r} is not one of its key's")
    problem: Exception | None = None
    for key in fitting:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                audience=audiences,
                issuer=issuer,
                leeway=leeway_s,
                options={"require": ["aud", "iss", *(["exp"] if ends else [])]},
            )
        except (jwt.PyJWTError, ValueError) as error:
            problem = error
        else:
            return claims
    raise TokenError(str(problem)) from problem
