"""Trust bundles: what counts as an anchor, overlap, and the mesh's hash."""

from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sentry.authority import generate
from sentry.bundle import TrustBundle
from sentry.errors import BundleError
from sentry.issuer import Issuer, dump_key, make_root, new_key
from sentry.spiffe import SpiffeId
from sentry.template import LeafTerms, leaf_template
from tests.unit.sentry.forge import KEY, NOW, Forgery, usage

ONE = make_root("one", NOW, new_key())
TWO = make_root("two", NOW, new_key())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def test_bundle_of_several_roots_keeps_them_once_in_order() -> None:
    bundle = TrustBundle.parse(pem(TWO, ONE, TWO))
    assert bundle.roots == (TWO, ONE)
    assert bundle.roots_der == (TWO.public_bytes(Encoding.DER), ONE.public_bytes(Encoding.DER))
    assert TrustBundle.parse(bundle.pem) == bundle


def test_bundle_with_text_between_roots_is_read() -> None:
    assert TrustBundle.parse(b"# old\n" + pem(ONE) + b"\n# new\r\n" + pem(TWO)).roots == (ONE, TWO)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no certificates", id="text"),
        pytest.param(pem(ONE)[:-40], id="cut"),
        pytest.param(pem(ONE) + dump_key(KEY) + pem(TWO), id="a key among them"),
        pytest.param(pem(ONE).replace(b"MII", b"AAA", 1), id="damaged"),
        pytest.param(pem(Forgery().sign()), id="a leaf"),
        pytest.param(pem(ONE) * 65, id="too many"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\n" * 3000, id="unfinished blocks"),
    ],
)
def test_bundle_that_is_not_whole_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError):
        TrustBundle.parse(content)


def test_bundle_self_signed_but_no_authority_is_refused() -> None:
    leaf = Forgery(subject="x").sign(issuer=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")]))
    with pytest.raises(BundleError, match="not a certificate authority"):
        TrustBundle.of([leaf])


@pytest.mark.parametrize(
    ("forgery", "is_anchor"),
    [
        (Forgery(subject="x", is_ca=True, key_usage=usage(signs=True)), True),
        (Forgery(subject="x", is_ca=True, key_usage=None), True),
        (Forgery(subject="x", is_ca=True, key_usage=usage()), False),
        (Forgery(subject="x", is_ca=False, key_usage=usage(signs=True)), False),
        (Forgery(subject="x", is_ca=None, key_usage=usage(signs=True)), False),
    ],
)
def test_anchor_must_be_an_authority_and_may_lack_key_usage(forgery: Forgery, is_anchor: bool) -> None:
    root = forgery.sign(issuer=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")]))
    if is_anchor:
        assert TrustBundle.of([root]).roots == (root,)
    else:
        with pytest.raises(BundleError, match="not a certificate authority"):
            TrustBundle.of([root])


def test_mesh_hash_ignores_order_and_tells_meshes_apart() -> None:
    both, reverse = TrustBundle.of([ONE, TWO]), TrustBundle.of([TWO, ONE])
    assert both.mesh_hash() == reverse.mesh_hash()
    assert len({both.mesh_hash(), TrustBundle.of([ONE]).mesh_hash(), TrustBundle.of([TWO]).mesh_hash()}) == 3
    assert len(both.mesh_hash()) == 16


def test_union_holds_both_roots_without_duplicates() -> None:
    assert TrustBundle.of([ONE]).union(TrustBundle.of([TWO, ONE])).roots == (ONE, TWO)


def test_bundle_of_our_roots_is_strict_and_a_foreign_one_is_not() -> None:
    foreign = _foreign_root()
    assert TrustBundle.of([ONE, TWO]).is_strict
    assert not TrustBundle.of([ONE, foreign]).is_strict


def test_chain_under_a_root_verifies_and_elsewhere_does_not() -> None:
    holdings = generate("one", "default", NOW)
    chain = pem(_leaf(holdings.issuer)) + holdings.issuer.chain_pem
    assert len(holdings.bundle.union(TrustBundle.of([TWO])).verify(chain, NOW)) == 2
    with pytest.raises(BundleError, match="does not end"):
        TrustBundle.of([ONE, TWO]).verify(chain, NOW)


@pytest.mark.parametrize("moment", [NOW + timedelta(hours=2), NOW - timedelta(minutes=30)])
def test_chain_out_of_its_time_is_refused(moment: datetime) -> None:
    holdings = generate("one", "default", NOW)
    chain = pem(_leaf(holdings.issuer)) + holdings.issuer.chain_pem
    with pytest.raises(BundleError):
        holdings.bundle.verify(chain, moment)


def test_chain_whose_leaf_signs_a_further_certificate_is_refused() -> None:
    holdings = generate("one", "default", NOW)
    middle = _leaf(holdings.issuer)
    child = Forgery().sign(KEY, issuer=middle.subject)
    with pytest.raises(BundleError, match="may not sign"):
        holdings.bundle.verify(pem(child, middle) + holdings.issuer.chain_pem, NOW)


def test_chain_below_the_issuers_path_length_is_refused() -> None:
    holdings = generate("one", "default", NOW)
    rogue = Forgery(subject="rogue", is_ca=True, key_usage=usage(signs=True)).sign(
        holdings.issuer.key,  # type: ignore[arg-type] # P-256 by construction
        issuer=holdings.issuer.certificate.subject,
    )
    child = Forgery().sign(KEY, issuer=rogue.subject)
    with pytest.raises(BundleError, match="path length"):
        holdings.bundle.verify(pem(child, rogue) + holdings.issuer.chain_pem, NOW)


def _leaf(issuer: Issuer) -> x509.Certificate:
    template = leaf_template(
        SpiffeId("public", "default", "cart"),
        KEY.public_key(),
        terms=LeafTerms(),
        now=NOW,
        issuer_not_after=issuer.not_after,
    )
    return issuer.sign(template)


def _foreign_root() -> x509.Certificate:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster.local")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(minutes=15))
        .not_valid_after(NOW + timedelta(days=365))
        .add_extension(usage(signs=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, None)
