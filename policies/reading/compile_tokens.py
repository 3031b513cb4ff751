"""`spec.jwt` and `when.jwt` of AccessPolicies -> whose tokens count, and what rules ask of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from policies.reading import own_schema
from policies.reading.construct import Place
from policies.reading.shown_urls import shown_url
from policies.rules.tokens import KeySource, TokenCondition, TokenIssuer

MAX_ISSUERS = 16  # of a policy
MAX_CLAIM_CHARS = 256

Fault = Callable[[Place, str], None]
_JWT: Place = ("spec", "jwt")


def token_issuers(written: Sequence[own_schema.JwtIssuer], folder: Path, fault: Fault) -> list[TokenIssuer]:
    """Those of one policy. A relative `jwksFile` lies in `folder`."""
    if len(written) > MAX_ISSUERS:
        fault(_JWT, f"has {len(written)} issuers (expected at most {MAX_ISSUERS})")
        return []
    made: dict[str, TokenIssuer] = {}
    for number, one in enumerate(written):
        place: Place = (*_JWT, number)
        if not one.name or one.name in made:
            fault(
                (*place, "name"),
                f"{one.name} is named again" if one.name else "is missing (expected a name for rules)",
            )
        if any(known.keys.issuer == one.issuer for known in made.values()):
            fault((*place, "issuer"), f"{one.issuer} is named again (expected one entry for each issuer)")
        _check_places(one, place, fault)
        if not one.audiences or not all(one.audiences):
            fault((*place, "audiences"), "is empty (expected whom its tokens are for, such as this app)")
        file = str(folder / one.jwks_file) if one.jwks_file else ""
        made[one.name] = TokenIssuer(
            name=one.name,
            keys=KeySource(issuer=one.issuer, url=one.jwks_url, file=file),
            audiences=tuple(one.audiences),
            forwarded=tuple(one.forward_claims),
        )
    return list(made.values())


def _check_places(one: own_schema.JwtIssuer, place: Place, fault: Fault) -> None:
    if not one.issuer:
        fault((*place, "issuer"), "is missing (expected the `iss` of its tokens)")
    elif not (one.jwks_url or one.jwks_file) and not _is_url(one.issuer):
        fault((*place, "issuer"), "is not a URL to find its keys at (expected one, or jwksUrl or jwksFile)")
    if one.jwks_url and one.jwks_file:
        fault((*place, "jwksFile"), "is beside jwksUrl (expected one of both)")
    if one.jwks_url and not _is_url(one.jwks_url):
        fault((*place, "jwksUrl"), f"`{shown_url(one.jwks_url)}` is not a URL (expected https://HOST/PATH)")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname)


def token_condition(
    written: own_schema.Jwt | None, place: Place, issuers: Mapping[str, TokenIssuer], fault: Fault
) -> TokenCondition | None:
    """What a rule asks of tokens. issuers: those that count, by name."""
    if written is None:
        return None
    if not issuers:
        fault(place, "has no issuer whose tokens would count (expected one in spec.jwt)")
        return TokenCondition()
    for number, name in enumerate(written.issuers):
        if name not in issuers:
            known = ", ".join(issuers)
            fault((*place, "issuers", number), f"`{name}` is not in spec.jwt (expected one of {known})")
    for claim, values in written.claims.items():
        if not claim or len(claim) > MAX_CLAIM_CHARS or not all(values):
            fault((*place, "claims", claim), "is not a claim with values (expected texts)")
    return TokenCondition(
        issuers=frozenset(issuers[name].keys.issuer for name in written.issuers if name in issuers),
        claims=tuple((claim, frozenset(values)) for claim, values in written.claims.items()),
    )
