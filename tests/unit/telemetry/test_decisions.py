"""What policies decided, from the counters."""

from telemetry.decisions import MOST, decisions
from telemetry.metrics import Meters


def test_decisions_are_told_the_most_frequent_first() -> None:
    meters = Meters("cart")
    meters.acl_decisions.add("web.default", "rules", "denied")
    for _ in range(3):
        meters.acl_decisions.add("web.default", "rules", "allowed")
    flow = ("cart", "retry3", "default", "retry", "outbound", "stock", "")
    meters.resiliency_count.add(*flow)
    meters.resiliency_count.add(*flow)
    meters.resiliency_activations.add(*flow)
    meters.retries.add("stock.default", "connect")
    told = decisions(meters)
    assert [(row["decision"], row["calls"]) for row in told["access"]] == [("allowed", 3), ("denied", 1)]
    (row,) = told["resiliency"]
    assert (row["name"], row["policy"], row["target"], row["calls"], row["activations"]) == (
        "retry3",
        "retry",
        "stock",
        2,
        1,
    )
    assert told["retries"] == [{"dst": "stock.default", "reason": "connect", "attempts": 1}]


def test_no_more_are_told_than_anybody_reads() -> None:
    meters = Meters("cart")
    for number in range(MOST + 5):
        meters.acl_decisions.add(f"app{number}", "rules", "allowed")
    assert len(decisions(meters)["access"]) == MOST
