"""Join tokens: minted with the runtime root's key, checked with its public half."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest

from sentry.errors import StoreError
from sentry.issuer import dump_key
from sentry.join import jwks, mint
from sentry.jwks import parse_set
from sentry.spiffe import SpiffeId, sentry_id
from tests.unit.sentry.forge import KEY

CART = SpiffeId("public", "default", "cart")
SENTRY = sentry_id("localhost", "default")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def claims_of(root: Path, token: str) -> dict[str, object]:
    keys = parse_set(json.dumps(jwks(root)).encode())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, object] = jwt.decode(token, key.key, algorithms=[key.algorithm], audience=str(SENTRY))
    return claims


def test_token_says_who_for_whom_and_how_long(root: Path) -> None:
    claims = claims_of(root, mint(root, CART, SENTRY))
    assert (claims["sub"], claims["aud"]) == (str(CART), [str(SENTRY)])
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 600


def test_token_never_lives_longer_than_ten_minutes(root: Path) -> None:
    claims = claims_of(root, mint(root, CART, SENTRY, 86400))
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 600


def test_tokens_differ_and_share_their_key(root: Path) -> None:
    one, two = mint(root, CART, SENTRY), mint(root, CART, SENTRY)
    assert claims_of(root, one)["jti"] != claims_of(root, two)["jti"]


def test_key_is_private_and_never_in_the_set(root: Path) -> None:
    key_set = jwks(root)
    assert (root / "sentry" / "join.key").stat().st_mode & 0o777 == 0o600
    assert set(key_set["keys"][0]) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_key_wanted_by_many_at_once_is_made_once(root: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        sets = list(pool.map(lambda _: json.dumps(jwks(root)), range(16)))
    assert len(set(sets)) == 1
    assert [path.name for path in (root / "sentry").iterdir()] == ["join.key"]


@pytest.mark.parametrize(("content", "mode"), [(dump_key(KEY), 0o644), (b"rubbish", 0o600), (b"", 0o600)])
def test_key_open_to_others_or_broken_is_refused(root: Path, content: bytes, mode: int) -> None:
    (root / "sentry").mkdir(mode=0o700)
    (root / "sentry" / "join.key").write_bytes(content)
    (root / "sentry" / "join.key").chmod(mode)
    with pytest.raises(StoreError) as refused:
        mint(root, CART, SENTRY)
    assert "--allow-loose-store" not in str(refused.value)  # it is about the authority's files alone
    assert mode == 0o600 or str(refused.value).endswith("chmod 0600 " + str(root / "sentry" / "join.key"))


def test_key_behind_a_link_is_refused(root: Path) -> None:
    (root / "sentry").mkdir(mode=0o700)
    (root / "elsewhere").write_bytes(dump_key(KEY))
    (root / "elsewhere").chmod(0o600)
    (root / "sentry" / "join.key").symlink_to(root / "elsewhere")
    with pytest.raises(StoreError, match="regular file"):
        mint(root, CART, SENTRY)
