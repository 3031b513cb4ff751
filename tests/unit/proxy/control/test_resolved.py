"""Rules as `postern status -o json` has them."""

from typing import Any

from policies.rules.limits import ConcurrencyRule
from policies.rules.resiliency import BUILTIN_RETRY
from proxy.contract.budgets import BudgetGlance
from proxy.control.resolved import budgets_status, endpoints_status, told


def test_rule_is_told_in_camel_case_and_in_order() -> None:
    assert told(ConcurrencyRule(limit=None, wait_s=0.1)) == {
        "limit": None,
        "least": 3,
        "most": 1_000,
        "queue": 128,
        "waitS": 0.1,
    }
    found: dict[str, Any] = told(BUILTIN_RETRY) or {}
    assert (found["grpcCodes"], found["httpCodes"], found["durationS"]) == ([14, 16], [], 1.0)
    assert told(None) is None


def test_budgets_are_named_for_people() -> None:
    glance = BudgetGlance("peer:cart.default", "share", 99.12345, 100.0)
    assert budgets_status([glance]) == [
        {"target": "cart.default", "kind": "share", "left": 99.12, "full": 100.0}
    ]


def test_endpoints_have_the_score_that_the_balancer_compares() -> None:
    load = {
        "address": "a:1",
        "rttMs": 2.0,
        "inFlight": 3,
        "ejectedForS": 1.5,
        "outlier": "probe",
        "proven": True,
    }
    named = {
        "cart.default": {
            "endpoints": [
                {"address": "a:1", "instance": "i", "source": "registry"},
                {"address": "b:1", "instance": "j", "source": "mdns"},
            ],
            "loads": [load],
        }
    }
    first, second, outside = endpoints_status(named, {"url:http://x": [{**load, "address": "c:80"}]})
    assert (first["score"], first["ejectedAs"], first["proven"]) == (8.0, "probe", True)
    assert (second["score"], second["rttMs"], second["inFlight"], second["ejectedForS"]) == (
        None,
        None,
        0,
        0.0,
    )
    assert (outside["target"], outside["address"], outside["source"]) == ("http://x", "c:80", "dns")
