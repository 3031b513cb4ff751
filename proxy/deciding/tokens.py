"""Reads the tokens of users for access policies: RFC 6750 on the way in, verified by their issuers' keys. Pure.

A call without a token is kept like any other decision; one with a token is decided each time, as a token must not become a key.
"""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from policies.rules.tokens import TokenIssuer, VerifiedToken
from proxy.contract.plan import Cause, Edit, Edits, Hold, Op, Reply
from proxy.contract.recording import RecordingHead
from proxy.deciding.bearer import TokenError, UnknownKeyError, bearer_token, issuer_of, verified
from proxy.deciding.callee import BEARER_SET
from proxy.deciding.remote import REMOTE_HOLD_S, Remote

BEARER: Final = frozenset({b"authorization: bearer"})  # a pattern as `carries` reads it
CLAIMS: Final = b"postern-claims"
SKEW_S: Final = 60.0  # RFC 7519 §4.1.4: a small leeway for clocks that differ
Refuse = Callable[[Cause, str], Reply]


class Users(NamedTuple):
    """The token of a call as the enforced policies take it, and as the audited ones do; None: it is of no user. told: for the app."""

    enforced: VerifiedToken | None = None
    audited: VerifiedToken | None = None
    told: Edits = ()


NOBODY: Final = Users()


class Tokens:
    """Those that the issuers of policies in force together sign."""

    def __init__(self, issuers: Sequence[TokenIssuer], remote: Remote) -> None:
        self._issuers = {one.keys.issuer: one for one in issuers}
        self._remote = remote

    def read(self, head: RecordingHead, refuse: Refuse) -> VerifiedToken | Hold | Reply | None:
        """The token of a call; None where it has none, or nobody asks. A token that does not count is refused."""
        if not self._issuers or not head.carries(BEARER_SET):
            return None
        token = bearer_token(head.whole().headers)
        if token is None:
            return refuse(Cause.UNAUTHENTICATED, "expected one bearer token in the header authorization")
        try:
            return self._verified(token, self._issuer_of(token), refuse)
        except TokenError as error:
            return refuse(Cause.UNAUTHENTICATED, f"the token does not count: {error}")

    def _issuer_of(self, token: str) -> TokenIssuer:
        named = issuer_of(token)
        issuer = self._issuers.get(named)
        if issuer is None:
            raise TokenError(f"its issuer {named[:200]!r} is not one of {', '.join(self._issuers)}")
        return issuer

    def _verified(self, token: str, issuer: TokenIssuer, refuse: Refuse) -> VerifiedToken | Hold | Reply:
        source, state = issuer.keys, self._remote.keys(issuer.keys)
        if state.keys is None:
            why = state.error or "they are on their way"
            text = f"tokens of {source.issuer} can't be checked without its keys: {why}"
            then = refuse(Cause.NOT_READY, text)
            return then if state.error else Hold(key=source.key, for_s=REMOTE_HOLD_S, then=then)
        try:
            claims = verified(
                token,
                state.keys,
                issuer=source.issuer,
                audiences=issuer.audiences,
                leeway_s=SKEW_S,
                ends=True,
            )
        except UnknownKeyError as error:
            then = refuse(Cause.UNAUTHENTICATED, f"the token does not count: {error}")
            return Hold(key=source.key, for_s=REMOTE_HOLD_S, then=then) if state.may_renew else then
        return VerifiedToken(source.issuer, claims)

    def told(self, token: VerifiedToken | None) -> Edits:
        """What the app is told of a token: the claims that are for it, as base64url (RFC 4648 §5) of JSON."""
        issuer = self._issuers.get(token.issuer) if token is not None else None
        if token is None or issuer is None or not issuer.forwarded:
            return ()
        names = token.claims if "*" in issuer.forwarded else issuer.forwarded
        claims: dict[str, Any] = {name: token.claims[name] for name in names if name in token.claims}
        text = json.dumps(claims, separators=(",", ":")).encode()
        return (Edit(op=Op.SET, name=CLAIMS, data=base64.urlsafe_b64encode(text).rstrip(b"=")),)
