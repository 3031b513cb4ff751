"""SPIFFE ids and leaves: the rules of SPIFFE-ID and X509-SVID, one test each."""

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from sentry.errors import IdentityError
from sentry.spiffe import SpiffeId, TrustDomain, sentry_id, verify_leaf, workload_id
from tests.unit.sentry.forge import CART, Forgery, usage

# The library announces that it will refuse some odd certificates (serial numbers below one) one day; so do we then.
odd_input = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


def test_id_formatted_then_parsed_is_itself() -> None:
    spiffe_id = SpiffeId("prod.example", "shop-1", "Cart_2")
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@pytest.mark.parametrize("scheme", ["spiffe", "SPIFFE", "Spiffe"])
def test_id_scheme_in_any_case_is_folded(scheme: str) -> None:
    assert str(SpiffeId.parse(f"{scheme}://public/ns/default/cart")) == CART


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "cart",
        "https://public/ns/default/cart",
        "spiffe:/public/ns/default/cart",
        "spiffe://",
        "spiffe:///ns/default/cart",
        "spiffe://public",
        "spiffe://public/",
        "spiffe://Public/ns/default/cart",
        "spiffe://user@public/ns/default/cart",
        "spiffe://public:443/ns/default/cart",
        "spiffe://public/ns/default/cart?x=1",
        "spiffe://public/ns/default/cart#x",
        "spiffe://public/ns/default/%61pp1",
        "spiffe://publ%69c/ns/default/cart",
        "spiffe://public/ns/default/cart/",
        "spiffe://public/ns//cart",
        "spiffe://public//ns/default/cart",
        "spiffe://public/ns/default/.",
        "spiffe://public/ns/../cart",
        "spiffe://public/ns/default/*",
        "spiffe://public/ns/default/ca rt",
        "spiffe://public/ns/default/cart\x00",
        "spiffe://public/ns/default/c\u0430rt",
        "spiffe://public/ns/default/cart\n",
        "spiffe://public/ns/default",
        "spiffe://public/ns/default/cart/extra",
        "spiffe://public/sa/default/cart",
        "spiffe://public/ns/default/ca.rt",
        f"spiffe://public/ns/default/{'a' * 65}",
        f"spiffe://{'a' * 256}/ns/default/cart",
        f"spiffe://public/ns/{'a' * 2048}/cart",
    ],
)
def test_id_of_illegal_form_is_refused(uri: str) -> None:
    with pytest.raises(IdentityError):
        SpiffeId.parse(uri)


def test_id_at_its_limits_is_accepted() -> None:
    spiffe_id = SpiffeId("a" * 255, "b" * 300, "c" * 64)
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


def test_id_of_exactly_2048_bytes_is_accepted_and_one_more_is_not() -> None:
    rest = len("spiffe://td/ns//cart")
    assert len(str(SpiffeId.parse(f"spiffe://td/ns/{'n' * (2048 - rest)}/cart"))) == 2048
    with pytest.raises(IdentityError):
        SpiffeId.parse(f"spiffe://td/ns/{'n' * (2049 - rest)}/cart")


def test_id_extra_segments_when_accepted_are_dropped_but_still_checked() -> None:
    assert str(SpiffeId.parse(f"{CART}/extra", accept_extended=True)) == CART
    with pytest.raises(IdentityError):
        SpiffeId.parse(f"{CART}/..", accept_extended=True)


def test_id_case_of_app_tells_apart() -> None:
    assert SpiffeId.parse("spiffe://public/ns/default/App1") != SpiffeId.parse(
        "spiffe://public/ns/default/app1"
    )


@pytest.mark.parametrize("app_id", ["dapr-sentry", "dapr-x", "DAPR-operator", "postern-sentry"])
def test_workload_id_reserved_is_refused(app_id: str) -> None:
    with pytest.raises(IdentityError):
        workload_id(f"spiffe://public/ns/default/{app_id}")


def test_workload_id_ordinary_is_parsed() -> None:
    assert workload_id(CART) == SpiffeId("public", "default", "cart")


def test_sentry_id_has_its_reserved_name() -> None:
    assert str(sentry_id("localhost", "mesh")) == "spiffe://localhost/ns/mesh/dapr-sentry"
    assert sentry_id("localhost", "mesh").is_reserved


@pytest.mark.parametrize(
    ("text", "name"), [("public", "public"), ("spiffe://a.b/ns/x/y", "a.b"), ("SPIFFE://a", "a")]
)
def test_trust_domain_given_as_id_is_reduced(text: str, name: str) -> None:
    assert TrustDomain.parse(text) == name


@pytest.mark.parametrize("text", ["", "Public", "a b", "*", "a/b", "a" * 256])
def test_trust_domain_illegal_is_refused(text: str) -> None:
    with pytest.raises(IdentityError):
        TrustDomain.parse(text)


@given(st.text(max_size=80))
def test_id_of_any_text_parses_to_itself_or_is_refused(text: str) -> None:
    uri = f"spiffe://{text}"
    try:
        parsed = SpiffeId.parse(uri)
    except IdentityError:
        return
    assert str(parsed) == uri


@pytest.mark.parametrize("as_server", [True, False])
def test_leaf_that_is_correct_yields_its_id(as_server: bool) -> None:
    assert str(verify_leaf(Forgery().der(), as_server=as_server)) == CART


def test_leaf_with_other_names_beside_its_uri_is_accepted() -> None:
    assert str(verify_leaf(Forgery(dns=("cart.local",)).der(), as_server=True)) == CART


def test_leaf_without_extended_key_usage_is_accepted() -> None:
    assert str(verify_leaf(Forgery(purposes=None).der(), as_server=True)) == CART


def test_leaf_with_constraints_that_say_no_authority_is_accepted() -> None:
    assert str(verify_leaf(Forgery(is_ca=False).der(), as_server=False)) == CART


@pytest.mark.parametrize(
    ("forgery", "rule"),
    [
        pytest.param(Forgery(uris=(CART, CART)), "san", id="same uri twice"),
        pytest.param(Forgery(uris=(CART, "https://example.org/")), "san", id="foreign uri beside"),
        pytest.param(Forgery(uris=(), dns=("cart",)), "san", id="no uri"),
        pytest.param(Forgery(has_san=False), "san", id="no san"),
        pytest.param(Forgery(san_is_critical=False), "san", id="empty subject, san not critical"),
        pytest.param(Forgery(uris=("https://public/ns/default/cart",)), "scheme", id="not spiffe"),
        pytest.param(
            Forgery(uris=("spiffe://Public/ns/default/cart",)), "trust-domain", id="upper-case host"
        ),
        pytest.param(Forgery(uris=(f"{CART}/",)), "segment", id="trailing slash"),
        pytest.param(Forgery(uris=("spiffe://public",)), "path", id="no path"),
        pytest.param(Forgery(uris=(f"{CART}/extra",)), "path", id="extended"),
        pytest.param(Forgery(uris=("spiffe://" + "a" * 256 + "/ns/a/b",)), "trust-domain", id="long host"),
        pytest.param(Forgery(uris=("spiffe://a/ns/" + "a" * 3000 + "/b",)), "length", id="long id"),
        pytest.param(Forgery(is_ca=True), "signing-certificate", id="authority"),
        pytest.param(Forgery(key_usage=usage(signs=True)), "signing-certificate", id="signs certificates"),
        pytest.param(Forgery(key_usage=usage(crl=True)), "signing-certificate", id="signs lists"),
        pytest.param(Forgery(key_usage=None), "key-usage", id="no key usage"),
        pytest.param(Forgery(key_usage_is_critical=False), "key-usage", id="key usage not critical"),
        pytest.param(
            Forgery(key_usage=usage(digital_signature=False)), "key-usage", id="no digital signature"
        ),
        pytest.param(
            Forgery(purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)), "extended-key-usage", id="code signing"
        ),
    ],
)
@pytest.mark.parametrize("as_server", [True, False])
def test_leaf_that_breaks_a_rule_is_refused(forgery: Forgery, rule: str, as_server: bool) -> None:
    with pytest.raises(IdentityError) as refusal:
        verify_leaf(forgery.der(), as_server=as_server)
    assert refusal.value.rule == rule


def test_leaf_for_clients_only_is_refused_as_server() -> None:
    der = Forgery(purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)).der()
    assert str(verify_leaf(der, as_server=False)) == CART
    with pytest.raises(IdentityError):
        verify_leaf(der, as_server=True)


@odd_input
@given(st.binary(max_size=300))
def test_leaf_of_random_bytes_is_refused(der: bytes) -> None:
    with pytest.raises(IdentityError):
        verify_leaf(der, as_server=True)


@odd_input
@given(st.integers(min_value=0), st.binary(min_size=1, max_size=4))
def test_leaf_with_damage_is_judged_or_refused_but_never_crashes(position: int, noise: bytes) -> None:
    der = bytearray(_DER)
    at = position % len(der)
    der[at : at + len(noise)] = noise
    try:
        judged = verify_leaf(bytes(der), as_server=True)
    except IdentityError:
        return
    assert SpiffeId.parse(str(judged)) == judged


_DER = Forgery().der()
