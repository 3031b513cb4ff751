"""Gates that shed by how things go."""

import msgspec

from proxy.contract.gates import GateState, LagGate, ThrottleGate
from proxy.contract.plan import Cause
from proxy.engine.portable.overload import Lag, Throttle
from proxy.engine.portable.passing import Refused, Waiting
from tests.support.vectors import Vector, vectors


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One asks at a moment, with a chance, and is let in and ends by `cause`, or is refused; so many `times`."""

    at: float
    chance: float = 0.0
    then: str
    cause: str = ""
    times: int = 1
    detail: str = ""


class Calls(Vector, frozen=True, kw_only=True):
    ratio: float
    window_s: float
    steps: list[Step]


@vectors("gates", "throttle", Calls)
def test_throttle_holds_back_as_many_as_the_callee_would_refuse(vector: Calls) -> None:
    gate = Throttle(ThrottleGate(ratio=vector.ratio, window_s=vector.window_s))
    for step in vector.steps:
        for _ in range(step.times):
            found = gate.enter(step.at, step.chance, "")
            if isinstance(found, Refused):
                assert (step.then, found) == ("shed", Refused(Cause.SHED, step.detail)), step
            else:
                assert not isinstance(found, Waiting)
                assert step.then == "inside", step
                found.leave(Cause(step.cause) if step.cause else None, step.at)


def test_throttle_that_is_changed_goes_on_and_one_taken_down_lets_all_in() -> None:
    gate = Throttle(ThrottleGate())
    for _ in range(20):
        gate.enter(0.0, 0.99, "")
        gate.leave(Cause.CONNECT, 0.0)
    gate.change(ThrottleGate(ratio=3.0))
    assert isinstance(gate.enter(0.0, 0.0, ""), Refused)
    assert gate.state() == GateState(inside=0, waiting=0, left={"connect": 20}, refused={"throttle": 1})
    gate.change(ThrottleGate(window_s=60.0))
    assert not isinstance(gate.enter(0.0, 0.0, ""), Refused)
    gate.open()
    for _ in range(20):
        assert not isinstance(gate.enter(0.0, 0.0, ""), Refused)


def test_lag_shuts_the_gate_while_the_loop_is_late_for_too_long() -> None:
    gate = Lag(LagGate(above_s=0.25, for_s=2.0))
    gate.note_lag(0.26)
    assert gate.enter(0.0, 0.0, "") is gate
    gate.note_lag(0.26)
    found = gate.enter(0.0, 0.0, "")
    assert found == Refused(Cause.SHED, "this proxy has been late by more than 0.25 s for 2 s")
    gate.note_lag(0.25)
    assert gate.enter(0.0, 0.0, "") is gate
    gate.leave(None, 0.0)
    assert gate.state() == GateState(inside=1, waiting=0, left={"": 1}, refused={"lag": 1})
    for _ in range(9):
        gate.note_lag(9.0)
    gate.open()
    assert gate.enter(0.0, 0.0, "") is gate
