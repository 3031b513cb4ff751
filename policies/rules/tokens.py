"""Tokens (JWT, RFC 7519) of the users behind calls, as access policies see them: who issues them, and what rules ask of them. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from msgspec import Struct

_LISTS_IN_TEXT: Final = frozenset({"scope", "scp"})  # RFC 8693 §4.2: words with a space between them


class KeySource(Struct, frozen=True, kw_only=True):
    """Where the keys of an issuer are: at `url`, in `file`, or with neither, where its OpenID discovery document says."""

    issuer: str
    url: str = ""
    file: str = ""

    @property
    def key(self) -> str:
        """What calls are held for while the keys are fetched."""
        return f"keys:{self.issuer} {self.url or self.file}"


class TokenIssuer(Struct, frozen=True, kw_only=True):
    """Whose tokens count. audiences: the token's `aud` must have one of them. forwarded: claims that the app is told, `*` for all."""

    name: str
    keys: KeySource
    audiences: tuple[str, ...]
    forwarded: tuple[str, ...] = ()


class VerifiedToken(NamedTuple):
    """A token that its issuer signed, for us, and in force."""

    issuer: str
    claims: Mapping[str, Any]

    def values(self, claim: str) -> tuple[str, ...]:
        """The values of a claim as text. Where no claim is called `a.b`, that is b within the object a."""
        found: Any = self.claims
        for name in (claim,) if claim in self.claims else claim.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        words = claim.rpartition(".")[2] in _LISTS_IN_TEXT and isinstance(found, str)
        return tuple(found.split() if words else _texts(found))


class TokenCondition(Struct, frozen=True, kw_only=True):
    """What a rule asks: a token of one of these issuers (none: of any), and of each claim one of these values (none: any)."""

    issuers: frozenset[str] = frozenset()
    claims: tuple[tuple[str, frozenset[str]], ...] = ()

    def holds(self, token: VerifiedToken | None) -> bool:
        """Whether a call with this token meets it; None: a call without one."""
        if token is None or (self.issuers and token.issuer not in self.issuers):
            return False
        for claim, wanted in self.claims:
            values = token.values(claim)
            if not values or (wanted and wanted.isdisjoint(values)):
                return False
        return True


def _texts(value: object) -> Iterator[str]:
    """A claim's value as text, or the members of a list; objects have none."""
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, str):
            yield one
        elif isinstance(one, bool | int | float):
            yield json.dumps(one)
