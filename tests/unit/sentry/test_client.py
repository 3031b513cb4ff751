"""What the client believes of a sentry's answer."""

import ssl
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.timestamp_pb2 import Timestamp

from sentry.authority import Authority, Holdings, generate
from sentry.bundle import TrustBundle
from sentry.ca_pb2 import SignCertificateResponse
from sentry.client import SvidClient, client_context, no_token, parse_address, read_answer
from sentry.errors import FetchError
from sentry.spiffe import SpiffeId, sentry_id
from sentry.template import LeafTerms
from tests.unit.sentry.forge import KEY, Forgery

NOW = datetime.now(UTC)
OURS = generate("localhost", "default", NOW)
FOREIGN = generate("localhost", "default", NOW)
CART = SpiffeId("public", "default", "cart")
END = Timestamp(seconds=2_000_000_000)


def signed(holdings: Holdings, spiffe_id: SpiffeId = CART) -> bytes:
    own = sentry_id("localhost", "default")
    authority = Authority(
        holdings, spiffe_id=own, terms=LeafTerms(), clock=lambda: datetime.now(UTC), save=lambda _: None
    )
    return authority.sign(spiffe_id, KEY.public_key()).chain_pem


def answer(chain: bytes, *bundle: bytes, end: Timestamp | None = END) -> bytes:
    response = SignCertificateResponse(
        workload_certificate=chain, trust_chain_certificates=bundle, valid_until=end
    )
    return response.SerializeToString()


def refusal_of(data: bytes) -> str:
    with pytest.raises(FetchError) as refusal:
        read_answer(data, CART, KEY, OURS.bundle)
    assert not refusal.value.is_transient
    return refusal.value.step


def test_answer_in_order_becomes_an_svid() -> None:
    svid = read_answer(answer(signed(OURS), OURS.bundle.pem), CART, KEY, OURS.bundle)
    assert (svid.spiffe_id, svid.bundle) == (CART, OURS.bundle)
    assert 3590 < svid.life_left_s <= 3600
    assert b"PRIVATE KEY" in svid.key_pem
    assert "PRIVATE" not in repr(svid)


def test_answer_with_a_new_root_brings_the_whole_bundle() -> None:
    both = OURS.bundle.union(FOREIGN.bundle)
    assert read_answer(answer(signed(OURS), both.pem), CART, KEY, OURS.bundle).bundle == both
    moved = read_answer(answer(signed(FOREIGN), both.pem), CART, KEY, OURS.bundle)
    assert moved.bundle == both


@pytest.mark.parametrize(
    "bundle", [(), (b"",), (b"rubbish",), (OURS.bundle.pem[:-30],), (FOREIGN.bundle.pem,)]
)
def test_answer_with_a_bad_bundle_keeps_the_present_anchors(bundle: tuple[bytes, ...]) -> None:
    assert read_answer(answer(signed(OURS), *bundle), CART, KEY, OURS.bundle).bundle == OURS.bundle


def test_answer_that_does_not_hold_is_refused() -> None:
    other = SpiffeId("public", "default", "other")
    assert refusal_of(b"\xff\xff") == "sign"
    assert refusal_of(answer(signed(OURS), OURS.bundle.pem, end=None)) == "invalid_ts"
    assert refusal_of(answer(b"", OURS.bundle.pem)) == "leaf"
    assert refusal_of(answer(signed(OURS, other), OURS.bundle.pem)) == "leaf"
    assert refusal_of(answer(signed(FOREIGN), b"")) == "leaf"
    forged = Forgery().sign().public_bytes(Encoding.PEM)
    assert refusal_of(answer(forged, OURS.bundle.pem)) == "leaf"


def test_answer_for_another_key_is_refused() -> None:
    stranger = generate("localhost", "default", NOW).issuer.key
    with pytest.raises(FetchError, match="another key"):
        read_answer(answer(signed(OURS)), CART, stranger, OURS.bundle)  # type: ignore[arg-type] # P-256 too


def test_context_is_strict_under_our_roots_only_unless_told() -> None:
    assert client_context(OURS.bundle).verify_flags & ssl.VERIFY_X509_STRICT
    assert not client_context(OURS.bundle, is_strict=False).verify_flags & ssl.VERIFY_X509_STRICT
    context = client_context(OURS.bundle)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert not context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


async def test_fetch_of_an_illegal_name_fails_before_any_connection() -> None:
    client = SvidClient("unix:/nowhere", OURS.bundle, sentry_id("localhost", "default"), no_token())
    with pytest.raises(FetchError, match="invalid identity"):
        await client.fetch("a/b", "default", "public")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("localhost:50001", ("localhost", 50001)),
        ("https://sentry.mesh:443", ("sentry.mesh", 443)),
        ("[::1]:50001", ("::1", 50001)),
    ],
)
def test_address_is_split(text: str, parts: tuple[str, int]) -> None:
    assert parse_address(text) == parts


@pytest.mark.parametrize("text", ["", "localhost", ":1", "localhost:x", "localhost:99999"])
def test_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(FetchError):
        parse_address(text)


def test_bundle_repr_is_short() -> None:
    assert len(repr(TrustBundle.of(OURS.bundle.roots))) < 40


@pytest.mark.parametrize("host", ["a" * 64, "\x00", "xn--" + "a" * 70])
async def test_fetch_from_a_host_that_can_not_be_says_so(host: str) -> None:
    client = SvidClient(f"{host}:1", OURS.bundle, sentry_id("localhost", "default"), no_token())
    with pytest.raises(FetchError) as refusal:
        await client.fetch("cart", "default", "public")
    assert refusal.value.step == "sentry_conn"
