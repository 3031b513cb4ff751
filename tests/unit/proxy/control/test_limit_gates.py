"""Limits as gates of an engine, and what is shown of them."""

from typing import cast

from proxy.contract.engine import Engine
from proxy.contract.gates import ConcurrencyGate, GateSpec, GateState, LagGate
from proxy.control.limit_gates import LimitGates, gates_status, scrape_gates
from telemetry.metrics import Meters


class Pushed:
    """Remembers the gates that stand."""

    def __init__(self) -> None:
        self.gates: dict[str, GateSpec] = {}

    def set_gate(self, name: str, spec: GateSpec | None) -> None:
        if spec is None:
            self.gates.pop(name)
        else:
            self.gates[name] = spec


def test_gates_of_an_owner_are_replaced_and_those_of_others_stay() -> None:
    engine, gates = Pushed(), LimitGates()
    gates.attach(cast("Engine", engine))
    one, two = ConcurrencyGate(limit=1), LagGate()
    gates.push("inbound", {"a": one, "b": two})
    gates.push("peer:shop.default", {"c": one})
    gates.push("inbound", {"b": one})
    assert engine.gates == {"b": one, "c": one}
    gates.push("inbound", {})
    gates.push("inbound", {})
    assert engine.gates == {"c": one}


STATES = {
    "rate:a": GateState(inside=0, waiting=0, left={}, refused={"rate": 3}),
    "inbound-concurrency": GateState(
        inside=2, waiting=1, left={"": 9}, refused={"queue-full": 1, "queue-timeout": 2}, limit=20
    ),
}


def test_refusals_are_counted_by_limit_and_reason() -> None:
    meters = Meters("shop", "default")
    scrape_gates(meters, STATES)
    scrape_gates(meters, STATES)
    assert {labels: slot.value for labels, slot in meters.limit_refusals.slots.items()} == {
        ("rate:a", "rate"): 3,
        ("inbound-concurrency", "queue-full"): 1,
        ("inbound-concurrency", "queue-timeout"): 2,
    }
    assert {labels: slot.value for labels, slot in meters.concurrency_limit.slots.items()} == {
        ("inbound-concurrency",): 20
    }
    scrape_gates(meters, {})
    assert meters.concurrency_limit.slots == {}


def test_faults_are_counted_over_all_targets() -> None:
    meters = Meters("shop", "default")
    states = {
        f"fault:{key}:slow": GateState(inside=0, waiting=0, left={}, refused={"delay": count})
        for key, count in (("peer:a.default", 2), ("peer:b.default", 3), ("inbound", 0))
    }
    scrape_gates(meters, states)
    assert {labels: slot.value for labels, slot in meters.faults_injected.slots.items()} == {
        ("slow", "delay"): 5
    }
    assert meters.limit_refusals.slots == {}
    assert gates_status(states)[0]["injected"] == {"delay": 0}


def test_gates_are_told_by_name() -> None:
    assert gates_status(STATES) == [
        {
            "name": "inbound-concurrency",
            "inside": 2,
            "waiting": 1,
            "refused": {"queue-full": 1, "queue-timeout": 2},
            "limit": 20,
        },
        {"name": "rate:a", "inside": 0, "waiting": 0, "refused": {"rate": 3}},
    ]
