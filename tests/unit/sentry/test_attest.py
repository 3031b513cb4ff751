"""Proofs: what a token must say, which tricks fail, and that one token serves one request."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sentry.attest import Ask, Attestor, InsecureValidator, JwksValidator, Kind, TokenMemory
from sentry.errors import AttestationError, RequestError
from sentry.join import key_id
from sentry.jwks import CallSource, KeySet
from sentry.spiffe import SpiffeId
from tests.unit.sentry.forge import KEY

SENTRY = "spiffe://localhost/ns/default/dapr-sentry"
CART = SpiffeId("public", "default", "cart")
NOW = 1_800_000_000.0
KID = key_id(KEY.public_key())
PUBLIC_JWK = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
SET = {"keys": [{**PUBLIC_JWK, "kid": KID, "alg": "ES256", "use": "sig"}]}


def claims(**changes: object) -> dict[str, Any]:
    stated: dict[str, Any] = {
        "aud": [SENTRY],
        "sub": str(CART),
        "iat": int(NOW),
        "exp": int(NOW) + 600,
        "jti": "1",
    }
    return {name: value for name, value in (stated | changes).items() if value is not None}


def token(stated: Mapping[str, Any] | None = None, *, headers: Mapping[str, Any] | None = None) -> str:
    return jwt.encode(
        dict(stated or claims()), KEY, algorithm="ES256", headers={"kid": KID, **(headers or {})}
    )


def unsigned(header: Mapping[str, Any], stated: Mapping[str, Any], signature: bytes = b"") -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return ".".join((part(json.dumps(header).encode()), part(json.dumps(stated).encode()), part(signature)))


def validator(now: float = NOW, key_set: object = SET) -> JwksValidator:
    source = CallSource(name="test", call=lambda: key_set)
    keys = KeySet(source, clock=lambda: 0.0)
    return JwksValidator([keys], SENTRY, TokenMemory(lambda: now), lambda: now)


def ask(proof: str, *, csr_hash: str = "one", spiffe_id: SpiffeId = CART) -> Ask:
    return Ask(spiffe_id=spiffe_id, token=proof, csr_hash=csr_hash)


async def refusal_of(
    proof: str, *, now: float = NOW, spiffe_id: SpiffeId = CART, key_set: object = SET
) -> str:
    with pytest.raises(AttestationError) as refusal:
        await validator(now, key_set).validate(ask(proof, spiffe_id=spiffe_id))
    assert proof == "" or proof not in str(refusal.value)
    return refusal.value.reason


async def test_token_that_says_all_grants_its_subject() -> None:
    grant = await validator().validate(ask(token()))
    assert (grant.spiffe_id, grant.validator, grant.token_subject) == (CART, Kind.JWKS, str(CART))
    assert len(grant.token_hash) == 64


async def test_token_for_sentry_among_other_audiences_is_taken() -> None:
    assert (await validator().validate(ask(token(claims(aud=["x", SENTRY]))))).spiffe_id == CART
    assert (await validator().validate(ask(token(claims(aud=SENTRY))))).spiffe_id == CART


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": None}, "token-audience"),
        ({"aud": ["spiffe://other/ns/default/dapr-sentry"]}, "token-audience"),
        ({"aud": [SENTRY + "/"]}, "token-audience"),
        ({"sub": None}, "token-subject"),
        ({"sub": "spiffe://public/ns/default/Cart"}, "token-subject"),
        ({"sub": "spiffe://public/ns/other/cart"}, "token-subject"),
        ({"sub": "spiffe://other/ns/default/cart"}, "token-subject"),
        ({"sub": "spiffe://public/ns/default/*"}, "token-subject"),
        ({"exp": None}, "token-times"),
        ({"iat": None}, "token-times"),
        ({"exp": "soon"}, "token-times"),
        ({"iat": True}, "token-times"),
        ({"exp": int(NOW) + 601}, "token-lifetime"),
        ({"iat": int(NOW) - 1000, "exp": int(NOW) - 400}, "token-expired"),
        ({"iat": int(NOW) + 100, "exp": int(NOW) + 500}, "token-early"),
        ({"nbf": int(NOW) + 100}, "token-early"),
    ],
)
async def test_token_with_a_wrong_claim_is_refused(changes: dict[str, object], reason: str) -> None:
    assert await refusal_of(token(claims(**changes))) == reason


def by_hand(**choices: Any) -> JwksValidator:
    keys = KeySet(CallSource(name="test", call=lambda: SET), clock=lambda: 0.0, **choices)
    return JwksValidator([keys], SENTRY, TokenMemory(lambda: NOW), lambda: NOW)


async def test_token_of_a_set_without_a_bound_may_live_long_and_serves_every_renewal() -> None:
    judge = by_hand(max_token_lifetime_s=None)
    long_lived = token(claims(exp=int(NOW) + 86_400))
    for csr_hash in ("one", "two"):
        assert (await judge.validate(ask(long_lived, csr_hash=csr_hash))).spiffe_id == CART
    await judge.validate(ask(token()))
    with pytest.raises(AttestationError, match="used before"):
        await judge.validate(ask(token(), csr_hash="two"))


async def test_reserved_id_is_granted_only_by_a_set_that_was_configured_to_prove_it() -> None:
    operator = SpiffeId("localhost", "dapr-system", "dapr-operator")
    proof = token(claims(sub=str(operator)))
    granted = await by_hand(grants_control_plane=True).validate(ask(proof, spiffe_id=operator))
    assert granted.spiffe_id == operator
    assert await refusal_of(proof, spiffe_id=operator) == "reserved-id"


async def test_token_signed_with_an_ed25519_key_is_taken() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    member = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key())) | {"kid": "ed", "use": "sig"}
    proof = jwt.encode(claims(), key, algorithm="EdDSA", headers={"kid": "ed"})
    assert (await validator(key_set={"keys": [member]}).validate(ask(proof))).spiffe_id == CART


async def test_token_within_the_leeway_of_a_slow_clock_is_taken() -> None:
    assert (await validator(NOW - 59).validate(ask(token()))).spiffe_id == CART
    assert (await validator(NOW + 659).validate(ask(token()))).spiffe_id == CART
    assert await refusal_of(token(), now=NOW + 661) == "token-expired"


async def test_token_missing_is_refused() -> None:
    assert await refusal_of("") == "token-missing"


@pytest.mark.parametrize("proof", ["x", "a.b", "a.b.c", "é.é.é", "." * 5, "W1tb" * 4000])
async def test_token_in_no_form_is_refused(proof: str) -> None:
    assert await refusal_of(proof) == "token-encoding"


async def test_token_without_algorithm_is_refused() -> None:
    header = {"alg": "none", "kid": KID, "typ": "JWT"}
    assert await refusal_of(unsigned(header, claims())) == "token-algorithm"


async def test_token_signed_with_the_public_key_as_secret_is_refused() -> None:
    secret = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    bare = unsigned({"alg": "HS256", "kid": KID}, claims()).rpartition(".")[0]
    signature = hmac.new(secret, bare.encode(), hashlib.sha256).digest()
    forged = bare + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    assert await refusal_of(forged) == "token-algorithm"


async def test_token_of_a_symmetric_key_in_the_set_is_refused() -> None:
    keys = {"keys": [{"kty": "oct", "kid": "s", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}]}
    forged = jwt.encode(claims(), b"x" * 32, algorithm="HS256", headers={"kid": "s"})
    assert await refusal_of(forged, key_set=keys) == "token-key"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "other", "", None])
async def test_token_of_an_unknown_key_is_refused(kid: str | None) -> None:
    header = {"alg": "ES256", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    assert await refusal_of(unsigned(header, claims(), b"x" * 64)) == "token-key"


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk"])
async def test_token_that_brings_its_own_key_is_refused(header: str) -> None:
    rogue = ec.generate_private_key(ec.SECP256R1())
    own = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(rogue.public_key()))
    value: object = own if header == "jwk" else "https://rogue.example/keys"
    forged = jwt.encode(claims(), rogue, algorithm="ES256", headers={"kid": KID, header: value})
    assert await refusal_of(forged) == "token-signature"


async def test_token_with_critical_headers_or_odd_type_is_refused() -> None:
    assert await refusal_of(
        unsigned({"alg": "ES256", "kid": KID, "crit": ["x"], "x": 1}, claims(), b"x" * 64)
    ) in {
        "token-type",
        "token-encoding",
    }
    assert await refusal_of(token(headers={"typ": "at+jwt"})) == "token-type"


async def test_token_used_again_serves_the_same_request_only() -> None:
    judge = validator()
    proof = token()
    await judge.validate(ask(proof))
    assert (await judge.validate(ask(proof))).spiffe_id == CART
    with pytest.raises(AttestationError) as refusal:
        await judge.validate(ask(proof, csr_hash="two"))
    assert refusal.value.reason == "replay"


async def test_token_without_jti_is_remembered_by_its_text() -> None:
    judge = validator()
    proof = token(claims(jti=None))
    await judge.validate(ask(proof))
    with pytest.raises(AttestationError):
        await judge.validate(ask(proof, csr_hash="two"))


def test_memory_full_of_living_tokens_refuses_and_of_dead_ones_does_not() -> None:
    now = NOW
    memory = TokenMemory(lambda: now, limit=2)
    memory.use("a", NOW + 10, "x")
    memory.use("b", NOW + 10, "x")
    with pytest.raises(AttestationError):
        memory.use("c", NOW + 10, "x")
    now = NOW + 100
    memory.use("c", now + 10, "x")


@pytest.mark.parametrize("app_id", ["dapr-sentry", "dapr-scheduler", "postern-admin"])
async def test_reserved_ids_are_refused_by_every_validator(app_id: str) -> None:
    reserved = SpiffeId("public", "default", app_id)
    attestor = Attestor({Kind.INSECURE: InsecureValidator(), Kind.JWKS: validator()}, Kind.JWKS)
    for kind in (Kind.UNKNOWN, Kind.INSECURE, Kind.JWKS):
        proof = token(claims(sub=str(reserved)))
        with pytest.raises(AttestationError) as refusal:
            await attestor.validator(kind).validate(ask(proof, spiffe_id=reserved))
        assert refusal.value.reason == "reserved-id"


def test_validator_not_enabled_or_unknown_is_the_requests_fault() -> None:
    attestor = Attestor({Kind.JWKS: validator()}, Kind.JWKS)
    for kind, name in ((Kind.INSECURE, "INSECURE"), (Kind.KUBERNETES, "KUBERNETES"), (77, "77"), (-1, "-1")):
        with pytest.raises(RequestError, match=rf"validator {name} is not enabled \(enabled: JWKS\)"):
            attestor.validator(kind)
    with pytest.raises(RequestError, match="a validator name must be specified"):
        Attestor({}, Kind.UNKNOWN).validator(0)


async def test_validator_unnamed_is_the_default() -> None:
    attestor = Attestor({Kind.INSECURE: InsecureValidator()}, Kind.INSECURE)
    assert (await attestor.validator(0).validate(ask(""))).validator is Kind.INSECURE
