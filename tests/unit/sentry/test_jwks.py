"""Key sets: which keys count, where sets come from, and when they are read again."""

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sentry.errors import SettingsError
from sentry.jwks import (
    CallSource,
    FileSource,
    HttpsSource,
    KeySet,
    RefreshRules,
    SourceError,
    parse_set,
    source_of,
)


def ec_member(kid: str = "k", **changes: object) -> dict[str, object]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(public)), "kid": kid, **changes}


def rsa_member(bits: int, **changes: object) -> dict[str, object]:
    public = rsa.generate_private_key(65537, bits).public_key()
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public)), "kid": "r", **changes}


def as_set(*members: object) -> bytes:
    return json.dumps({"keys": members}).encode()


def test_set_keeps_keys_by_name_with_their_one_algorithm() -> None:
    keys = parse_set(as_set(ec_member("a"), rsa_member(2048, alg="PS256")))
    assert {kid: key.algorithm for kid, key in keys.items()} == {"a": "ES256", "r": "PS256"}


@pytest.mark.parametrize(
    "member",
    [
        "text",
        ec_member(kid=""),
        {name: value for name, value in ec_member().items() if name != "kid"},
        ec_member(use="enc"),
        ec_member(alg="HS256"),
        ec_member(alg="ES384"),
        ec_member(crv="P-999"),
        {"kty": "oct", "kid": "s", "k": "eA"},
        rsa_member(1024),
        rsa_member(2048, alg="none"),
    ],
)
def test_set_skips_keys_that_verify_nothing_here(member: object) -> None:
    assert parse_set(as_set(member)) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys": 1}', as_set(*range(65)), b"[" * 100_000])
def test_set_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(SourceError):
        parse_set(content)


async def test_key_unknown_is_looked_for_again_but_not_more_often_than_allowed() -> None:
    now, reads, members = 0.0, 0, [ec_member("old")]

    def read() -> object:
        nonlocal reads
        reads += 1
        return {"keys": members}

    keys = KeySet(
        CallSource(name="x", call=read),
        clock=lambda: now,
        rules=RefreshRules(max_age_s=100, min_interval_s=5),
    )
    assert await keys.find("old") is not None
    assert await keys.find("new") is None
    members.append(ec_member("new"))
    now = 4.9
    assert await keys.find("new") is None
    assert reads == 1
    now = 5.0
    assert await keys.find("new") is not None
    assert reads == 2


async def test_key_withdrawn_is_dropped_when_the_set_is_old() -> None:
    now, members = 0.0, [ec_member("a")]
    keys = KeySet(CallSource(name="x", call=lambda: {"keys": members}), clock=lambda: now)
    assert await keys.find("a") is not None
    members.clear()
    now = 601.0
    assert await keys.find("a") is None


async def test_set_that_fails_to_refresh_keeps_what_it_had() -> None:
    now, is_broken = 0.0, False

    def read() -> object:
        if is_broken:
            raise OSError("gone")
        return {"keys": [ec_member("a")]}

    keys = KeySet(CallSource(name="x", call=read), clock=lambda: now)
    assert await keys.find("a") is not None
    now, is_broken = 1000.0, True
    assert await keys.find("a") is not None
    assert keys.last_error == "gone"


async def test_source_is_told_by_its_form() -> None:
    inline = as_set(ec_member("a"))
    assert source_of("https://issuer.example/keys?x=1").name == "https://issuer.example/keys"
    assert isinstance(source_of("https://issuer.example"), HttpsSource)
    assert isinstance(source_of("/etc/keys.json"), FileSource)
    assert set(parse_set(await source_of(inline.decode()).read())) == {"a"}
    assert set(parse_set(await source_of(base64.b64encode(inline).decode()).read())) == {"a"}


@pytest.mark.parametrize("text", ["http://issuer.example/keys", "{broken"])
def test_source_unsafe_or_broken_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        source_of(text)
