"""Tokens of users: which count, which are refused, what waits for keys, and what the app is told."""

import base64
import json

import pytest

from policies.rules.tokens import KeySource, TokenIssuer, VerifiedToken
from proxy import errors
from proxy.contract.head import Headers
from proxy.contract.plan import Cause, Hold, Labels, Reply
from proxy.contract.recording import RecordingHead, Tables
from proxy.control.explaining import inbound_head
from proxy.deciding.bearer import read_keys
from proxy.deciding.callee import BEARER_SET
from proxy.deciding.remote import KeysState, NothingFetched
from proxy.deciding.tokens import BEARER, SKEW_S, Tokens
from tests.support.issuer import Issuer

ISSUER = Issuer("https://idp.example", None)
KEYS = read_keys(json.dumps({"keys": ISSUER.keys}).encode())
HAD = KeysState(KEYS)
OURS = TokenIssuer(
    name="idp", keys=KeySource(issuer=ISSUER.url), audiences=("shop", "cart"), forwarded=("sub",)
)


class Fetched(NothingFetched):
    """What a test says was fetched."""

    def __init__(self, state: KeysState) -> None:
        self._state = state

    def keys(self, source: KeySource) -> KeysState:
        return self._state


def read(
    *authorization: str,
    state: KeysState = HAD,
    issuers: tuple[TokenIssuer, ...] = (OURS,),
) -> tuple[VerifiedToken | Hold | Reply | None, RecordingHead]:
    headers: Headers = tuple((b"authorization", value.encode()) for value in authorization)
    tables = Tables()
    tables.put_set(BEARER_SET, BEARER)
    head = RecordingHead(inbound_head("GET", "/", headers, is_grpc=False, peer=""), tables)

    def refuse(cause: Cause, text: str) -> Reply:
        return errors.reply(cause, Labels(direction="inbound"), text)

    return Tokens(issuers, Fetched(state)).read(head, refuse), head


def test_call_without_token_is_of_nobody_and_its_decision_kept() -> None:
    for headers in ((), ("Basic eDp5",)):
        found, head = read(*headers)
        assert found is None
        assert head.may_keep
    found, head = read(f"Bearer {ISSUER.token()}", issuers=())
    assert (found, head.vary) == (None, ())


def test_token_that_counts_names_its_user_for_one_call() -> None:
    found, head = read(f"bEARER {ISSUER.token(sub='me', aud=['x', 'cart'])}")
    assert isinstance(found, VerifiedToken)
    assert (found.issuer, found.claims["sub"]) == (ISSUER.url, "me")
    assert not head.may_keep


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("x", "Not enough segments"),
        (ISSUER.token(iss="https://else"), "its issuer 'https://else' is not one of https://idp.example"),
        (ISSUER.token(iss=None), "its issuer '' is not one of"),
        (ISSUER.token(aud="y"), "Audience doesn't match"),
        (ISSUER.token(exp=1_000), "expired"),
        (ISSUER.token(exp=None), 'Token is missing the "exp" claim'),
        (ISSUER.token(kid="rsa-old"), "its key 'rsa-old' is not among"),
        (Issuer(ISSUER.url, None).token(), "Signature verification failed"),
        (ISSUER.token(algorithm="HS256", key="k" * 32), "its algorithm 'HS256' is not one of its key's"),
    ],
)
def test_token_that_does_not_count_is_refused(token: str, why: str) -> None:
    found, _ = read(f"Bearer {token}")
    assert isinstance(found, Reply)
    assert (found.cause, found.status, found.grpc_code) == (Cause.UNAUTHENTICATED, 401, 16)
    assert why in found.grpc_message


def test_two_tokens_are_refused() -> None:
    token = f"Bearer {ISSUER.token()}"
    found, _ = read(token, token)
    assert isinstance(found, Reply)


def test_clock_may_differ_a_little() -> None:
    import time  # noqa: PLC0415

    late = time.time() - SKEW_S / 2
    assert isinstance(read(f"Bearer {ISSUER.token(exp=late)}")[0], VerifiedToken)


def test_calls_wait_for_keys_and_fail_closed() -> None:
    token = f"Bearer {ISSUER.token()}"
    found, _ = read(token, state=KeysState())
    assert isinstance(found, Hold)
    assert (found.key, found.then.status) == (OURS.keys.key, 503)
    found, _ = read(token, state=KeysState(error="no answer"))
    assert isinstance(found, Reply)
    assert (found.cause, "no answer" in found.grpc_message) == (Cause.NOT_READY, True)
    found, _ = read(f"Bearer {ISSUER.token(kid='rsa-new')}", state=KeysState(KEYS, may_renew=True))
    assert isinstance(found, Hold)
    assert found.then.status == 401


def test_app_is_told_the_claims_that_are_for_it() -> None:
    tokens = Tokens((OURS,), NothingFetched())
    (edit,) = tokens.told(VerifiedToken(ISSUER.url, {"sub": "mé", "secret": 1}))
    assert json.loads(base64.urlsafe_b64decode(edit.data + b"==")) == {"sub": "mé"}
    assert b"=" not in edit.data
    assert tokens.told(None) == ()
