"""Checks the proof that a workload presents: may its bearer have the identity that it asks for?

Owns the token rules and the memory of tokens seen. A grant always equals the proof's subject, never what the request
asks for. The control plane's reserved ids are refused by every validator except a key set that was configured to prove them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Protocol

from msgspec import Struct

from sentry.errors import AttestationError, RequestError
from sentry.jwks import KeySet, VerificationKey
from sentry.spiffe import SpiffeId

MAX_TOKEN_BYTES: Final = 16 * 1024
_LEEWAY_S: Final = 60.0
# A token that lives longer is one that its bearer renews certificates with, again and again, as a mounted service account's.
ONE_USE_S: Final = 600.0
_MAX_REMEMBERED: Final = 100_000
_TYPES: Final = frozenset({None, "JWT", "JOSE"})


class Kind(IntEnum):
    """The wire's numbers of validators."""

    UNKNOWN = 0
    INSECURE = 1
    KUBERNETES = 2
    JWKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a workload asks for: an identity, the proof, and the hash of the CSR that it came with."""

    spiffe_id: SpiffeId
    token: str = field(repr=False)
    csr_hash: str


class Grant(Struct, frozen=True, kw_only=True):
    """What a proof yields; `token_hash` is for the audit log."""

    spiffe_id: SpiffeId
    validator: Kind
    token_subject: str = ""
    token_issuer: str = ""
    token_hash: str = ""


class Validator(Protocol):
    """One way of proving who asks."""

    async def validate(self, ask: Ask) -> Grant:
        """Grant exactly `ask.spiffe_id`, or raise AttestationError."""


class Attestor:
    """Chooses the validator that a request names."""

    def __init__(self, validators: Mapping[Kind, Validator], default: Kind) -> None:
        """`default` (of `validators`, or UNKNOWN for none) serves requests that name no validator."""
        self._validators = dict(validators)
        self._default = default

    def validator(self, kind: int) -> Validator:
        """The one of that number, 0: the default. Raises: RequestError where it is not enabled."""
        named = kind or self._default
        validator = next((known for name, known in self._validators.items() if name == named), None)
        if validator is None:
            enabled = ", ".join(sorted(known.name for known in self._validators)) or "none"
            fault = (
                f"the validator {_name(kind)} is not enabled"
                if kind
                else "a validator name must be specified in this environment"
            )
            raise RequestError("validator", f"{fault} (enabled: {enabled})")
        return validator


def _name(kind: int) -> str:
    return {one.value: one.name for one in Kind}.get(kind, str(kind))


class InsecureValidator:
    """Believes everyone. For trials on one machine; the server limits it to loopback and unix sockets."""

    async def validate(self, ask: Ask) -> Grant:
        """Grant what is asked, but for reserved ids."""
        _refuse_reserved(ask.spiffe_id)
        return Grant(spiffe_id=ask.spiffe_id, validator=Kind.INSECURE)


class TokenMemory:
    """Tokens seen, until they expire: each serves one CSR only.

    State (`_seen`: token hash -> end and CSR) is bounded; when full of living tokens, new ones are refused.
    """

    def __init__(self, clock: Callable[[], float], *, limit: int = _MAX_REMEMBERED) -> None:
        """`clock` gives epoch seconds."""
        self._clock = clock
        self._limit = limit
        self._seen: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def use(self, token_hash: str, expires_at: float, csr_hash: str) -> None:
        """Record a use. The same CSR again is a client's retry; another one is a replay: AttestationError."""
        earlier = self._seen.get(token_hash)
        if earlier is not None:
            if earlier[1] != csr_hash:
                raise AttestationError("replay", "the token was used before, for another request")
            return
        if len(self._seen) >= self._limit:
            now = self._clock()
            for old in [seen for seen, (end, _) in self._seen.items() if end < now]:
                del self._seen[old]
        if len(self._seen) >= self._limit:
            raise AttestationError("replay", "too many tokens in use, try again later")
        self._seen[token_hash] = (expires_at + _LEEWAY_S, csr_hash)


class JwksValidator:
    """Tokens signed by a key of one of several sets: subject = the id asked for, audience = sentry; short-lived ones serve once."""

    def __init__(
        self, key_sets: Sequence[KeySet], audience: str, memory: TokenMemory, clock: Callable[[], float]
    ) -> None:
        """`audience` is sentry's id; `clock` gives epoch seconds."""
        self._key_sets = tuple(key_sets)
        self._audience = audience
        self._memory = memory
        self._clock = clock

    async def validate(self, ask: Ask) -> Grant:
        """Check signature, times, audience, subject and first use, in that order. Raises AttestationError."""
        if not ask.token:
            raise AttestationError("token-missing", "a token is needed, the request has none")
        key, key_set = await self._find_key(_header(ask.token))
        if not key_set.grants_control_plane:
            _refuse_reserved(ask.spiffe_id)
        claims = _verified_claims(ask.token, key)
        expires_at, lifetime_s = self._check_times(claims, key_set.max_token_lifetime_s)
        self._check_names(claims, ask.spiffe_id)
        token_hash = hashlib.sha256(
            f"{claims.get('iss', '')}\n{claims.get('jti') or ask.token}".encode()
        ).hexdigest()
        if lifetime_s <= ONE_USE_S:
            self._memory.use(token_hash, expires_at, ask.csr_hash)
        return Grant(
            spiffe_id=ask.spiffe_id,
            validator=Kind.JWKS,
            token_subject=str(claims["sub"]),
            token_issuer=str(claims.get("iss", "")),
            token_hash=token_hash,
        )

    async def _find_key(self, header: Mapping[str, Any]) -> tuple[VerificationKey, KeySet]:
        kid = header.get("kid")
        if not isinstance(kid, str) or not kid:
            raise AttestationError("token-key", "the token has no key id (kid)")
        if header.get("typ") not in _TYPES or "crit" in header:
            raise AttestationError("token-type", "the token is of an unknown type or has critical headers")
        for key_set in self._key_sets:
            key = await key_set.find(kid)
            if key is not None:
                if header.get("alg") != key.algorithm:
                    raise AttestationError("token-algorithm", "the token's algorithm is not its key's")
                return key, key_set
        raise AttestationError("token-key", "the token is signed by an unknown key")

    def _check_times(self, claims: Mapping[str, Any], max_lifetime_s: float | None) -> tuple[float, float]:
        """When the token ends, and how long it lives in all."""
        now = self._clock()
        issued_at, expires_at = _number(claims, "iat"), _number(claims, "exp")
        if expires_at <= now - _LEEWAY_S:
            raise AttestationError("token-expired", "the token has expired")
        if issued_at > now + _LEEWAY_S or ("nbf" in claims and _number(claims, "nbf") > now + _LEEWAY_S):
            raise AttestationError("token-early", "the token is not valid yet (is a clock wrong?)")
        if max_lifetime_s is not None and expires_at - issued_at > max_lifetime_s:
            raise AttestationError(
                "token-lifetime", f"the token's lifetime is longer than {max_lifetime_s:.0f} s"
            )
        return expires_at, expires_at - issued_at

    def _check_names(self, claims: Mapping[str, Any], asked: SpiffeId) -> None:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._audience not in audiences:
            raise AttestationError("token-audience", f"the token's audience is not {self._audience}")
        if claims.get("sub") != str(asked):
            raise AttestationError("token-subject", f"the token's subject is not the id asked for, {asked}")


def _refuse_reserved(spiffe_id: SpiffeId) -> None:
    if spiffe_id.is_reserved:
        raise AttestationError(
            "reserved-id", f"app-id {spiffe_id.app_id!r} is reserved for the control plane"
        )


def _header(token: str) -> Mapping[str, Any]:
    import jwt  # noqa: PLC0415 -- 50 ms; the server loads it once it listens

    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise AttestationError("token-encoding", "the token is not a compact JWS") from error


def _verified_claims(token: str, key: VerificationKey) -> Mapping[str, Any]:
    import jwt  # noqa: PLC0415 -- as in _header

    # Times, audience and subject are judged by this module, with its own clock; the library checks the signature.
    options: Any = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
    try:
        claims: Any = jwt.decode(token, key.key, algorithms=[key.algorithm], options=options)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise AttestationError("token-signature", "the token's signature is invalid") from error
    if not isinstance(claims, dict):
        raise AttestationError("token-encoding", "the token's claims are not a JSON object")
    return claims


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise AttestationError("token-times", f"the token lacks a numeric {name}")
    return float(value)
