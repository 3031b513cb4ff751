"""Where a call would go, and why not elsewhere."""

from typing import Any

import pytest

from nameresolution.look_up import Asked, Given, LookUp
from nameresolution.resolver import AppName, Endpoint, EndpointSet, SourceFailure
from proxy.control.resolving import asked_of, preferences, standing


def end(port: int, source: str = "host registry", weight: int = 1) -> Endpoint:
    return Endpoint(host="10.0.0.1", port=port, source=source, weight=weight)


def load(port: int, **facts: Any) -> dict[str, Any]:
    return {
        "address": f"10.0.0.1:{port}",
        "inFlight": 0,
        "rttMs": 1.0,
        "ejectedForS": 0.0,
        "proven": True,
        **facts,
    }


@pytest.mark.parametrize(
    ("facts", "source", "tier", "why"),
    [
        ({}, "mdns", 0, "answered before (1 ms, 0 in flight)"),
        ({"proven": False}, "host registry", 1, "known to this host, not called yet"),
        ({"ejectedForS": 2.5}, "mdns", 2, "left alone for 2.5 s after connections failed"),
        (
            {"ejectedForS": 30.0, "outlier": "failures"},
            "mdns",
            2,
            "left alone for 30 s as its answers failed time after time",
        ),
        ({"proven": False}, "mdns", 3, "only announced on the network"),
        ({"proven": False, "ejectedForS": 9.0}, "mdns", 4, "left alone for 9 s as it failed or proved"),
    ],
)
def test_standing_follows_the_engines_tiers(facts: dict[str, Any], source: str, tier: int, why: str) -> None:
    met, _, said = standing(end(1, source), load(1, **facts))
    assert (met, said.startswith(why)) == (tier, True), said


def looked(*ends: Endpoint) -> LookUp:
    name = AppName("cart", "default")
    return LookUp(asked=(), found=EndpointSet(name=name, endpoints=ends))


def test_endpoints_are_told_in_the_order_of_preference() -> None:
    loads = (load(1, inFlight=5), load(2), load(3, ejectedForS=1.0))
    told = preferences(looked(end(1), end(2), end(3), end(4)), loads)
    assert [(each["address"][-1], each["verdict"]) for each in told] == [
        ("2", "preferred"),
        ("1", "candidate"),
        ("4", "later"),
        ("3", "later"),
    ]
    assert "of two drawn at random" in told[1]["why"]
    assert told[0]["rttMs"] == 1.0
    (alone,) = preferences(looked(end(4)), ())
    assert (alone["verdict"], alone["why"], alone["rttMs"]) == (
        "preferred",
        "known to this host, not called yet",
        None,
    )


def test_source_is_told_with_its_time_age_and_fix() -> None:
    given = (Given(endpoint=end(1)), Given(endpoint=end(2), ignored="because"))
    told = asked_of(Asked(source="mdns", took_s=0.01234, given=given), 3.21)
    assert (told["tookMs"], told["keptForS"], told["problem"]) == (12.3, 3.2, "")
    assert [each["ignored"] for each in told["endpoints"]] == ["", "because"]
    silent = asked_of(Asked(source="mdns", took_s=None, failure=SourceFailure(reason="no", fix="do")), None)
    assert (silent["tookMs"], silent["keptForS"], silent["problem"], silent["fix"]) == (
        None,
        None,
        "no",
        "do",
    )
