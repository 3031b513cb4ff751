"""Signing: what a leaf holds, that it never outlives its issuer, and the hand-over to the next issuer."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from sentry.authority import Authority, Holdings, StoredBundle, generate
from sentry.errors import BundleError, SigningError, StoreError
from sentry.issuer import Issuer, SigningKey, dump_key, make_issuer, make_root, new_key, public_bytes
from sentry.spiffe import SpiffeId, sentry_id, verify_leaf
from sentry.template import LeafTerms
from tests.unit.sentry.forge import KEY, NOW, Forgery

CART = SpiffeId("public", "default", "cart")
OWN = sentry_id("localhost", "default")


class Desk:
    """An authority with a clock to turn and a shelf for what it saves."""

    def __init__(self, holdings: Holdings | None = None, terms: LeafTerms | None = None) -> None:
        self.now = NOW
        self.saved: list[StoredBundle] = []
        self.is_disk_full = False
        self.holdings = holdings or generate("localhost", "default", NOW)
        self.authority = Authority(
            self.holdings, spiffe_id=OWN, terms=terms or LeafTerms(), clock=self.clock, save=self.save
        )

    def clock(self) -> datetime:
        return self.now

    def save(self, bundle: StoredBundle) -> None:
        if self.is_disk_full:
            raise StoreError("disk", "is full")
        self.saved.append(bundle)


def test_leaf_names_the_granted_id_and_nothing_else() -> None:
    leaf = Desk().authority.sign(CART, KEY.public_key()).leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(name.value) for name in names.value] == [str(CART)]
    assert names.critical
    assert list(leaf.subject) == []
    assert public_bytes(leaf.public_key()) == public_bytes(KEY.public_key())
    assert verify_leaf(leaf.public_bytes(Encoding.DER), as_server=False) == CART


def test_leaf_has_the_profile_and_its_key_identifiers() -> None:
    desk = Desk()
    leaf = desk.authority.sign(CART, KEY.public_key()).leaf
    issuer_id = desk.authority.issuer.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    )
    authority_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert authority_id.value.key_identifier == issuer_id.value.digest
    assert {extension.oid.dotted_string for extension in leaf.extensions} == {
        "2.5.29.14",
        "2.5.29.15",
        "2.5.29.17",
        "2.5.29.35",
        "2.5.29.37",
    }


def test_leaf_lives_an_hour_and_begins_a_minute_early() -> None:
    leaf = Desk().authority.sign(CART, KEY.public_key()).leaf
    assert leaf.not_valid_before_utc == NOW - timedelta(minutes=1)
    assert leaf.not_valid_after_utc == NOW + timedelta(hours=1)


def test_leaf_near_the_issuers_end_is_cut_to_it_then_refused() -> None:
    desk = Desk()
    end = desk.authority.issuer.not_after
    desk.now = end - timedelta(minutes=10)
    assert desk.authority.sign(CART, KEY.public_key()).leaf.not_valid_after_utc == end
    for left in (timedelta(minutes=5), timedelta(0), -timedelta(days=1)):
        desk.now = end - left
        with pytest.raises(SigningError, match="issuer's certificate ends"):
            desk.authority.sign(CART, KEY.public_key())


def test_own_identity_is_not_signed_for_others() -> None:
    desk = Desk()
    with pytest.raises(SigningError):
        desk.authority.sign(OWN, KEY.public_key())
    signed, key = desk.authority.sign_own()
    assert verify_leaf(signed.leaf.public_bytes(Encoding.DER), as_server=True) == OWN
    assert public_bytes(signed.leaf.public_key()) == public_bytes(key.public_key())


def test_root_and_issuer_leave_room_for_leaves_only() -> None:
    holdings = generate("localhost", "default", NOW)
    lengths = [
        certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for certificate in (holdings.root, holdings.issuer.certificate)
    ]
    assert lengths == [1, 0]
    for certificate in (holdings.root, holdings.issuer.certificate):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://localhost"]


def test_long_trust_domain_still_makes_an_authority() -> None:
    holdings = generate("a" * 255, "default", NOW)
    assert holdings.bundle.verify(holdings.issuer.chain_pem, NOW)


def test_holdings_stored_then_parsed_are_the_same() -> None:
    holdings = generate("localhost", "default", NOW)
    again = Holdings.parse(holdings.stored(), NOW)
    assert (again.bundle, again.issuer, again.root) == (holdings.bundle, holdings.issuer, holdings.root)
    assert again.root_key is not None


def test_issuer_is_renewed_late_in_its_life_under_the_same_root() -> None:
    desk = Desk()
    old = desk.authority.issuer
    desk.now = old.not_after - timedelta(days=31)
    assert not desk.authority.renew_issuer()
    desk.now = old.not_after - timedelta(days=29)
    assert desk.authority.renew_issuer()
    assert desk.authority.issuer.not_after > old.not_after
    assert desk.authority.bundle == desk.holdings.bundle
    assert desk.saved[0].anchors_pem == desk.holdings.bundle.pem
    assert not desk.authority.renew_issuer()
    assert desk.holdings.bundle.verify(desk.authority.sign(CART, KEY.public_key()).chain_pem, desk.now)


def test_issuer_expired_is_renewed_when_the_roots_key_is_ours() -> None:
    desk = Desk()
    desk.now = desk.authority.issuer.not_after + timedelta(days=1)
    desk = _reloaded(desk)
    assert desk.authority.renew_issuer()
    assert desk.authority.sign(CART, KEY.public_key()).leaf.not_valid_after_utc > desk.now


def test_issuer_stays_when_its_successor_can_not_be_saved() -> None:
    desk = Desk()
    old = desk.authority.issuer
    desk.now = old.not_after - timedelta(days=1)
    desk.is_disk_full = True
    with pytest.raises(StoreError):
        desk.authority.renew_issuer()
    assert desk.authority.issuer is old


def test_issuer_without_the_roots_key_is_never_renewed() -> None:
    own = generate("localhost", "default", NOW)
    desk = Desk(Holdings(bundle=own.bundle, issuer=own.issuer, root=own.root))
    desk.now = own.issuer.not_after - timedelta(hours=1)
    assert not desk.authority.renew_issuer()


def test_issuer_never_outlives_the_root() -> None:
    holdings = generate("localhost", "default", NOW)
    late = holdings.root.not_valid_after_utc - timedelta(days=10)
    assert holdings.root_key is not None
    issuer = make_issuer(
        holdings.root,
        holdings.root_key,
        trust_domain="localhost",
        namespace="default",
        now=late,
        key=new_key(),
    )
    assert issuer.not_after == holdings.root.not_valid_after_utc


@pytest.mark.parametrize(
    "make_key",
    [
        partial(ec.generate_private_key, ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
        partial(rsa.generate_private_key, 65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_issuer_of_another_kind_of_key_signs_too(make_key: Callable[[], SigningKey]) -> None:
    key, root_key = make_key(), new_key()
    root = make_root("localhost", NOW, root_key)
    issuer = make_issuer(root, root_key, trust_domain="localhost", namespace="default", now=NOW, key=key)
    brought = StoredBundle(
        anchors_pem=root.public_bytes(Encoding.PEM),
        issuer_pem=issuer.chain_pem + root.public_bytes(Encoding.PEM),
        issuer_key_pem=dump_key(key),
    )
    holdings = Holdings.parse(brought, NOW)
    assert len(holdings.issuer.chain) == 1
    signed = Desk(holdings).authority.sign(CART, KEY.public_key())
    assert holdings.bundle.verify(signed.chain_pem, NOW)


def _stored(**changes: bytes) -> StoredBundle:
    stored = generate("localhost", "default", NOW).stored()
    values = {
        name: getattr(stored, name)
        for name in ("anchors_pem", "issuer_pem", "issuer_key_pem", "root_key_pem")
    }
    return StoredBundle(**(values | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer_key_pem": dump_key(KEY)},
        {"issuer_key_pem": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
        {"root_key_pem": dump_key(KEY)},
        {"anchors_pem": generate("localhost", "default", NOW).bundle.pem},
        {"issuer_pem": Forgery().sign().public_bytes(Encoding.PEM), "issuer_key_pem": dump_key(KEY)},
        {"anchors_pem": b""},
    ],
    ids=["another key", "broken key", "another root key", "another root", "a leaf as issuer", "no anchors"],
)
def test_holdings_that_do_not_fit_together_are_refused(changes: dict[str, bytes]) -> None:
    with pytest.raises(BundleError) as refusal:
        Holdings.parse(_stored(**changes), NOW)
    assert "PRIVATE" not in str(refusal.value)


def test_keys_are_in_no_repr() -> None:
    holdings = generate("localhost", "default", NOW)
    shown = repr(holdings) + repr(holdings.stored()) + repr(holdings.issuer)
    assert "PRIVATE" not in shown
    assert "PrivateKey" not in shown


def test_bundle_with_a_second_root_is_handed_out_whole() -> None:
    own, other = generate("localhost", "default", NOW), generate("localhost", "default", NOW)
    both = own.bundle.union(other.bundle)
    desk = Desk(Holdings(bundle=both, issuer=own.issuer, root=own.root, root_key=own.root_key))
    assert desk.authority.sign(CART, KEY.public_key()).bundle == both


def test_issuer_parse_drops_a_trailing_root() -> None:
    holdings = generate("localhost", "default", NOW)
    whole = holdings.issuer.chain_pem + holdings.bundle.pem
    assert Issuer.parse(whole, dump_key(holdings.issuer.key)).chain == holdings.issuer.chain


def _reloaded(desk: Desk) -> Desk:
    again = Desk(Holdings.parse(desk.holdings.stored(), desk.now))
    again.now = desk.now
    return again
