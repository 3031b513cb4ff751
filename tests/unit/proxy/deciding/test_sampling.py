"""Which sampling rule a call goes by, and what is read to tell."""

from typing import Any

import pytest

from policies.rules.configuration import SamplingRule
from proxy.contract.plan import FORCED, Plan
from proxy.contract.recording import Facet, RecordingHead, Tables
from proxy.deciding.sampling import SamplingRules, sampling_rules
from tests.unit.proxy.heads import head, outbound, tables

RULES = (
    SamplingRule(rate=1.0, target="cart.other"),
    SamplingRule(rate=1.0, target="cart", method="/orders/{*}", verb="POST"),
    SamplingRule(rate=0.5, target="cart", headers=((b"x-debug", frozenset({b"1"})),)),
    SamplingRule(rate=0.1, method="/shop.CartService/{**}"),
)


def pushed(rules: SamplingRules) -> Tables:
    """What the control plane pushes, with the rules'."""
    made = tables()
    for number, table in rules.tables():
        made.put_paths(number, table)
    for number, members in rules.sets():
        made.put_set(number, members)
    return made


def sampling_of(rules: SamplingRules, target: str, **changes: Any) -> tuple[int, RecordingHead]:
    """The sampling of a call of app `web` in namespace `shop`, and what was read."""
    asking = RecordingHead(head(target, **changes), pushed(rules))
    found = outbound(sampling=rules).decide(asking)
    assert isinstance(found, Plan)
    return found.labels.sampling, asking


@pytest.mark.parametrize(
    ("target", "changes", "number"),
    [
        ("/v1.0/invoke/cart.other/method/x", {}, 1),
        ("/v1.0/invoke/cart/method/orders/7", {"method": "POST"}, 2),
        ("/v1.0/invoke/cart/method/orders/7/items", {"method": "POST"}, 0),
        ("/v1.0/invoke/cart/method/orders/7", {}, 0),
        ("/v1.0/invoke/cart/method/x", {"headers": ((b"x-debug", b"1"),)}, 3),
        ("/v1.0/invoke/cart/method/x", {"headers": ((b"x-debug", b"0"),)}, 0),
        ("/shop.CartService/Get", {"protocol": "grpc", "method": "POST"}, 4),
    ],
)
def test_first_rule_that_fits_is_the_calls(target: str, changes: dict[str, Any], number: int) -> None:
    assert sampling_of(sampling_rules(RULES, (), "shop"), target, **changes)[0] == number


def test_no_more_is_read_than_a_rule_could_turn_on() -> None:
    _, asked = sampling_of(sampling_rules((), (), "shop"), "/v1.0/invoke/cart/method/x")
    before = asked.vary
    _, asked = sampling_of(sampling_rules(RULES[:1], (), "shop"), "/v1.0/invoke/cart/method/x")
    assert asked.vary == before
    _, asked = sampling_of(sampling_rules(RULES, (), "shop"), "/v1.0/invoke/cart/method/x")
    assert {read.facet for read in asked.vary[len(before) :]} <= {Facet.METHOD, Facet.HEADER, Facet.PATH}


@pytest.mark.parametrize(
    ("force_from", "value", "number"),
    [
        (("web",), b"1", FORCED),
        (("web.shop",), b"1", FORCED),
        (("web",), b"0", 1),
        (("cart", "web.other"), b"1", 1),
        ((), b"1", 1),
    ],
)
def test_force_is_heeded_from_its_sources_alone(
    force_from: tuple[str, ...], value: bytes, number: int
) -> None:
    rules = sampling_rules((SamplingRule(rate=0.0),), force_from, "shop")
    found, _ = sampling_of(rules, "/v1.0/invoke/cart/method/x", headers=((b"postern-trace", value),))
    assert found == number
