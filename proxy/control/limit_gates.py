"""Limits of a Traffic as the control plane has them: pushed to the engine as gates, and what it says of those for metrics and status."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from proxy.contract.engine import Engine
from proxy.contract.gates import GateSpec, GateState
from proxy.deciding.faults import GATE
from telemetry.metrics import Meters

INBOUND = "inbound"  # who owns the gates of calls to the app


class LimitGates:
    """Mutable state: the names of the gates that stand, by who owns them: a cluster, or `INBOUND`."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._standing: dict[str, tuple[str, ...]] = {}

    def attach(self, engine: Engine) -> None:
        """The engine that holds them from now on."""
        self._engine = engine

    def push(self, owner: str, gates: Mapping[str, GateSpec]) -> None:
        """Put up an owner's gates, which keep their state where they stand already, and take down its others."""
        assert self._engine is not None
        for name in self._standing.pop(owner, ()):
            if name not in gates:
                self._engine.set_gate(name, None)
        for name, spec in gates.items():
            self._engine.set_gate(name, spec)
        if gates:
            self._standing[owner] = tuple(gates)


def scrape_gates(meters: Meters, states: Mapping[str, GateState]) -> None:
    """What gates refused so far, the harm that they did on purpose, and the limits that adapt."""
    faults: Counter[tuple[str, str]] = Counter()
    for name, state in states.items():
        for reason, count in state.refused.items():
            if name.startswith(GATE):
                faults[name.rpartition(":")[2], reason] += count
            else:
                meters.limit_refusals.slot(name, reason).set(count)
    for (fault, kind), count in faults.items():
        meters.faults_injected.slot(fault, kind).set(count)
    meters.concurrency_limit.replace(
        {(name,): state.limit for name, state in states.items() if state.limit is not None}
    )


def gates_status(states: Mapping[str, GateState]) -> list[dict[str, Any]]:
    """Each gate that stands, by name."""
    return [
        {
            "name": name,
            "inside": state.inside,
            "waiting": state.waiting,
            ("injected" if name.startswith(GATE) else "refused"): dict(state.refused),
            **({"limit": state.limit} if state.limit is not None else {}),
        }
        for name, state in sorted(states.items())
    ]
