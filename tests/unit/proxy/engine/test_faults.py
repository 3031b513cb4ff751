"""The gate that harms attempts on purpose, and answers that break off or come slowly."""

import math

import pytest

from proxy.contract.gates import FaultGate, GateState
from proxy.engine.portable.faults import Fault, Hit
from proxy.engine.portable.passing import Refused, Waiting
from tests.support.vectors import Vector, vectors


class Draws(Vector, frozen=True, kw_only=True):
    """Of an attempt that is harmed, for how many milliseconds it waits, to the nearest; of another one none."""

    share: float
    times: int | None
    seed: int
    waits_ms: list[int | None]


def wait_s(gate: Fault) -> float | None:
    """How long one that comes now waits; None: it is not harmed."""
    found = gate.enter(0.0, 0.0, "")
    assert not isinstance(found, Refused)
    if isinstance(found, Waiting):
        assert found.at is not None
        return found.at
    return 0.0 if isinstance(found, Hit) else None


@vectors("gates", "fault", Draws)
def test_seed_says_who_is_harmed(vector: Draws) -> None:
    spec = FaultGate(
        name="f",
        kind="delay",
        share=vector.share,
        times=vector.times or 0,
        seed=vector.seed,
        least_s=0.1,
        most_s=1.0,
    )
    gate = Fault(spec)
    waits = [wait_s(gate) for _ in vector.waits_ms]
    assert [None if one is None else math.floor(one * 1e3 + 0.5) for one in waits] == vector.waits_ms


@pytest.mark.parametrize(("chance", "is_harmed"), [(0.0, True), (0.249, True), (0.25, False), (0.999, False)])
def test_without_a_seed_chance_decides(chance: float, is_harmed: bool) -> None:
    gate = Fault(FaultGate(name="f", kind="abort", share=0.25))
    assert isinstance(gate.enter(0.0, chance, ""), Hit) is is_harmed


def test_same_fault_goes_on_and_another_begins_anew() -> None:
    gate = Fault(FaultGate(name="f", kind="abort", times=1))
    assert [wait_s(gate), wait_s(gate)] == [0.0, None]
    gate.change(FaultGate(name="f", kind="abort", times=1))
    assert wait_s(gate) is None
    gate.change(FaultGate(name="f", kind="reset", times=1))
    assert [wait_s(gate), wait_s(gate)] == [0.0, None]
    assert gate.state() == GateState(inside=5, waiting=0, left={}, refused={"reset": 1})
    gate.open()
    assert wait_s(gate) is None
