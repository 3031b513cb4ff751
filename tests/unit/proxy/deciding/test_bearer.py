"""Tokens of callers, by every way that one may fail to count."""

import base64
import json
import time
from hmac import digest
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from proxy.deciding.bearer import (
    MAX_TOKEN_BYTES,
    SKEW_S,
    KeysError,
    TokenError,
    UnknownKeyError,
    bearer_token,
    read_keys,
    verified,
)
from tests.support.issuer import Issuer

URL = "https://login.example"
ISSUER = Issuer(URL, None)
KEYS = read_keys(json.dumps({"keys": ISSUER.keys}).encode())


def judge(token: str) -> None:
    verified(token, KEYS, issuer=URL, audiences=("shop",))


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


@pytest.mark.parametrize("kid", ["rsa", "ec", None])
@pytest.mark.parametrize("audience", ["shop", ["other", "shop"]])
def test_token_of_the_issuer_for_the_audience_counts(kid: str | None, audience: object) -> None:
    judge(ISSUER.token(kid=kid, aud=audience))


@pytest.mark.parametrize("algorithm", ["RS384", "PS256", "PS512"])
def test_key_verifies_all_algorithms_of_its_type(algorithm: str) -> None:
    judge(ISSUER.token(algorithm=algorithm))


def test_edwards_key_verifies() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    made = {**OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "ed"}
    token = ISSUER.token(kid="ed", key=key, algorithm="EdDSA")
    verified(token, read_keys(jwks(made)), issuer=URL, audiences=("shop",))


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"iss": "https://other.example"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"aud": "other"}, "Audience"),
        ({"aud": None}, "aud"),
        ({"exp": time.time() - SKEW_S - 3_600}, "expired"),
        ({"nbf": time.time() + SKEW_S + 3_600}, "not yet valid"),
        ({"exp": "soon"}, "exp"),
    ],
)
def test_claim_that_does_not_fit_is_told(claims: dict[str, Any], problem: str) -> None:
    with pytest.raises(TokenError, match=problem):
        judge(ISSUER.token(**claims))


@pytest.mark.parametrize(("claim", "from_now_s"), [("exp", -SKEW_S / 2), ("nbf", SKEW_S / 2)])
def test_clocks_may_differ_by_five_minutes(claim: str, from_now_s: float) -> None:
    claims: dict[str, Any] = {claim: time.time() + from_now_s}
    judge(ISSUER.token(**claims))


def test_token_may_last_for_ever() -> None:
    judge(ISSUER.token(exp=None))


def test_unsigned_token_never_counts() -> None:
    for kid in ("rsa", None):
        with pytest.raises(TokenError):
            judge(ISSUER.token(kid=kid, algorithm="none", key=""))


def test_public_key_is_no_secret_of_hmac() -> None:
    public = ISSUER.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    encoded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "HS256", "kid": "rsa"}, {"iss": URL, "aud": "shop"})
    ]
    signature = digest(public, ".".join(encoded).encode(), "sha256")
    forged = ".".join((*encoded, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()))
    with pytest.raises(TokenError, match="HS256"):
        judge(forged)


def test_signature_by_another_key_does_not_count() -> None:
    other = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    for kid in ("rsa", None):
        with pytest.raises(TokenError, match="Signature"):
            judge(ISSUER.token(kid=kid, key=other))


def test_key_of_another_type_does_not_verify() -> None:
    with pytest.raises(TokenError, match="ES256"):
        judge(ISSUER.token(kid="rsa", key=ISSUER.ec, algorithm="ES256"))


def test_unknown_key_is_told_apart() -> None:
    with pytest.raises(UnknownKeyError, match="'rsa-next'"):
        judge(ISSUER.token(kid="rsa-next"))


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "\xff.\xff.\xff", "." * 9, base64.b64encode(b"[" * 9_000).decode() + ".a.b"]
)
def test_what_is_no_token_does_not_count(token: str) -> None:
    with pytest.raises(TokenError):
        judge(token)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([b"Bearer abc"], "abc"),
        ([b"bEARER  abc "], "abc"),
        ([b"Bearer"], None),
        ([b"Bearer "], None),
        ([b"Basic abc"], None),
        ([], None),
        ([b"Bearer a", b"Bearer b"], None),
        ([b"Bearer " + b"a" * MAX_TOKEN_BYTES], None),
    ],
)
def test_one_token_is_read(headers: list[bytes], token: str | None) -> None:
    assert bearer_token([(b"x", b"y"), *((b"authorization", data) for data in headers)]) == token


def test_keys_that_can_verify_nothing_are_passed_over() -> None:
    weak = RSAAlgorithm.to_jwk(
        rsa.generate_private_key(public_exponent=65_537, key_size=1_024).public_key(),
        as_dict=True,
    )
    bad: list[object] = [
        {**ISSUER.jwk("rsa"), "use": "enc"},
        {**ISSUER.jwk("rsa"), "key_ops": ["sign"]},
        {**ISSUER.jwk("rsa"), "alg": "RSA-OAEP"},
        {**ISSUER.jwk("rsa"), "n": "!"},
        {**ISSUER.jwk("rsa"), "n": None},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {},
        "text",
        weak,
    ]
    with pytest.raises(KeysError, match="no public key for signatures"):
        read_keys(jwks(*bad))
    assert [key.kid for key in read_keys(jwks(*bad, ISSUER.jwk("ec")))] == ["ec"]
    narrowed = read_keys(jwks({**ISSUER.jwk("rsa"), "alg": "RS512"}))
    assert narrowed[0].algorithms == ("RS512",)


def test_empty_set_withdraws_all_keys() -> None:
    assert read_keys(jwks()) == ()
    with pytest.raises(UnknownKeyError):
        verified(ISSUER.token(), (), issuer=ISSUER.url, audiences=("shop",))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"keys": 1}', b'{"keys": null}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_set_of_keys_is_told(body: bytes) -> None:
    with pytest.raises(KeysError):
        read_keys(body)


def test_token_of_another_curve_does_not_count() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    token = jwt.encode({"iss": URL, "aud": "shop"}, key, algorithm="ES384", headers={"kid": "ec"})
    with pytest.raises(TokenError, match="ES384"):
        judge(token)
