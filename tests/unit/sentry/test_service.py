"""One signing request: limits before anything else, the right refusal for each fault, only the key taken."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.attest import Attestor, InsecureValidator, Kind
from sentry.audit import AuditLog
from sentry.authority import Authority, generate
from sentry.ca_pb2 import SignCertificateRequest
from sentry.chain import parse_certificates
from sentry.client import make_csr
from sentry.errors import AttestationError, RateLimitError, RequestError
from sentry.issuer import new_key
from sentry.key_ledger import KeyLedger
from sentry.rate import RateLimiter
from sentry.service import ServicePolicy, SigningService
from sentry.spiffe import sentry_id, verify_leaf
from sentry.template import LeafTerms
from tests.unit.sentry.forge import KEY, NOW
from tests.unit.sentry.test_csr import greedy_request

CSR = make_csr(KEY)
HOLDINGS = generate("localhost", "default", NOW)


def service(*, strict_csr: bool = False, burst: float = 50) -> SigningService:
    authority = Authority(
        HOLDINGS,
        spiffe_id=sentry_id("localhost", "default"),
        terms=LeafTerms(),
        clock=lambda: NOW,
        save=lambda _: None,
    )
    attestor = Attestor({Kind.INSECURE: InsecureValidator()}, Kind.INSECURE)
    limiter = RateLimiter(lambda: 0.0, burst=burst)
    audit = AuditLog(None, lambda: NOW)
    return SigningService(
        authority,
        attestor,
        audit,
        limiter=limiter,
        policy=ServicePolicy(strict_csr=strict_csr),
        keys=KeyLedger(lambda: 0.0),
    )


def request(**changes: object) -> SignCertificateRequest:
    values: dict[str, object] = {"id": "cart", "namespace": "default", "certificate_signing_request": CSR}
    return SignCertificateRequest(**(values | changes))  # type: ignore[arg-type]


async def test_request_in_order_gets_leaf_chain_bundle_and_end() -> None:
    answer = await service().answer(request(trust_domain="prod"), "unix:")
    chain = parse_certificates(answer.workload_certificate)
    assert (
        str(verify_leaf(chain[0].public_bytes(Encoding.DER), as_server=True))
        == "spiffe://prod/ns/default/cart"
    )
    assert chain[1:] == HOLDINGS.issuer.chain
    assert list(answer.trust_chain_certificates) == [HOLDINGS.bundle.pem]
    assert answer.valid_until.seconds == chain[0].not_valid_after_utc.timestamp()
    assert not answer.HasField("jwt")


async def test_request_without_trust_domain_gets_the_default_one() -> None:
    answer = await service().answer(request(), "unix:")
    leaf = parse_certificates(answer.workload_certificate)[0]
    assert (
        str(verify_leaf(leaf.public_bytes(Encoding.DER), as_server=True)) == "spiffe://public/ns/default/cart"
    )


async def test_request_that_asks_for_more_gets_the_granted_id_only() -> None:
    answer = await service().answer(request(certificate_signing_request=greedy_request()), "unix:")
    leaf = parse_certificates(answer.workload_certificate)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["spiffe://public/ns/default/cart"]
    assert list(leaf.subject) == []
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.BasicConstraints)


async def test_request_that_asks_for_more_is_refused_when_strict() -> None:
    with pytest.raises(RequestError):
        await service(strict_csr=True).answer(request(certificate_signing_request=greedy_request()), "unix:")
    await service(strict_csr=True).answer(request(), "unix:")


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"id": ""}, AttestationError, "incomplete"),
        ({"namespace": ""}, AttestationError, "incomplete"),
        ({"certificate_signing_request": b""}, AttestationError, "incomplete"),
        ({"id": "a.b"}, AttestationError, "app-id"),
        ({"id": "a" * 65}, AttestationError, "app-id"),
        ({"trust_domain": "Bad"}, AttestationError, "trust-domain"),
        ({"trust_domain": "a" * 300}, RequestError, "trust-domain"),
        ({"id": "dapr-sentry"}, AttestationError, "reserved-id"),
        ({"id": "a/b"}, RequestError, "segment"),
        ({"id": "a%2fb"}, RequestError, "segment"),
        ({"id": "*"}, RequestError, "segment"),
        ({"id": ".."}, RequestError, "segment"),
        ({"id": "c\u0430rt"}, RequestError, "segment"),
        ({"id": "cart\x00"}, RequestError, "segment"),
        ({"namespace": "a/ns"}, RequestError, "segment"),
        ({"namespace": "n" * 3000}, RequestError, "length"),
        ({"certificate_signing_request": b"x"}, RequestError, "csr-encoding"),
        ({"certificate_signing_request": b"x" * 16385}, RequestError, "csr-size"),
        ({"token": "x" * 16385}, RequestError, "token-size"),
        ({"jwt_audiences": ["a"] * 9}, RequestError, "audiences"),
        ({"jwt_audiences": ["a" * 257]}, RequestError, "audiences"),
        ({"token_validator": 2}, RequestError, "validator"),
        ({"token_validator": 99}, RequestError, "validator"),
    ],
)
async def test_request_with_a_fault_is_refused_for_it(
    changes: dict[str, object], kind: type[RequestError | AttestationError], reason: str
) -> None:
    with pytest.raises((RequestError, AttestationError)) as refusal:
        await service().answer(request(**changes), "unix:")
    assert type(refusal.value) is kind
    assert isinstance(refusal.value, RequestError | AttestationError)
    assert refusal.value.reason == reason


async def test_requests_at_their_limits_pass() -> None:
    await service().answer(request(id="a" * 64, token="x" * 16384, jwt_audiences=["a" * 256] * 8), "unix:")


async def test_requests_of_one_identity_are_limited_and_others_are_not() -> None:
    desk = service(burst=2)
    await desk.answer(request(), "unix:")
    await desk.answer(request(), "unix:")
    with pytest.raises(RateLimitError):
        await desk.answer(request(), "unix:")
    await desk.answer(request(id="other", certificate_signing_request=make_csr(new_key())), "unix:")
    assert desk.signed_count == 3


async def test_request_for_another_identity_with_the_same_key_is_refused() -> None:
    desk = service()
    await desk.answer(request(), "unix:")
    await desk.answer(request(certificate_signing_request=make_csr(KEY)), "unix:")
    with pytest.raises(AttestationError) as refusal:
        await desk.answer(request(id="other", certificate_signing_request=make_csr(KEY)), "unix:")
    assert refusal.value.reason == "key-reuse"
