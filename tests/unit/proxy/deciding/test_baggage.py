"""What becomes of baggage: invalid members, and keys that may not cross a trust boundary."""

from msgspec.structs import replace

from policies.rules.access import without_policy
from proxy.contract.plan import Cause, Edit, Labels, Op, Plan, Reply
from proxy.contract.recording import RecordingHead
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.baggage import BaggageRules
from proxy.deciding.callee import BAGGAGE_SET
from tests.unit.proxy.heads import head, inbound, tables

LABELS = Labels(direction="outbound", dst="cart")
ALLOWED = frozenset({b"tenant"})


def asking(baggage: bytes, **changes: object) -> RecordingHead:
    made = tables()
    made.put_set(BAGGAGE_SET, ALLOWED)
    return RecordingHead(head("/x", headers=((b"baggage", baggage),), **changes), made)


def test_invalid_members_are_dropped_or_refused() -> None:
    lenient, strict = BaggageRules(), BaggageRules(is_strict=True)
    assert lenient.take(asking(b"a=1"), LABELS, crosses_boundary=True) == (LABELS, ())
    told = replace(LABELS, baggage="malformed")
    assert lenient.take(asking(b"a=1,b"), LABELS, crosses_boundary=False) == (told, (Edit(op=Op.BAGGAGE),))
    refused = strict.take(asking(b"a=1,b"), LABELS, crosses_boundary=False)
    assert isinstance(refused, Reply)
    assert (refused.cause, refused.status) == (Cause.BAD_REQUEST, 400)


def test_keys_beyond_those_that_are_allowed_do_not_cross_a_boundary() -> None:
    for limited in (BaggageRules(allowed=ALLOWED), BaggageRules(is_strict=True, allowed=ALLOWED)):
        assert limited.take(asking(b"tenant=a"), LABELS, crosses_boundary=True) == (LABELS, ())
        assert limited.take(asking(b"tenant=a,user=b"), LABELS, crosses_boundary=False) == (LABELS, ())
        edit = Edit(op=Op.BAGGAGE, name=b"only", data=b"tenant")
        told = replace(LABELS, baggage="not-allowed")
        assert limited.take(asking(b"tenant=a,user=b"), LABELS, crosses_boundary=True) == (told, (edit,))


def test_baggage_of_callers_in_other_trust_domains_is_limited() -> None:
    decider = inbound()
    everybody = Authorizer(
        without_policy(
            profile="daprd",
            own_app_id="web",
            own_namespace="shop",
            own_trust_domain="public",
            mtls=True,
        )
    )
    decider.view = replace(decider.view, baggage=BaggageRules(allowed=ALLOWED), authorizer=everybody)

    def told(domain: str) -> str:
        peer = f"spiffe://{domain}/ns/shop/cart"
        found = decider.decide(asking(b"tenant=a,user=b", listener="peer", peer=peer))
        assert isinstance(found, Plan | Reply)
        return found.labels.baggage

    assert told("public") == ""
    assert told("far") == "not-allowed"
