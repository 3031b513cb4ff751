"""Gates of a rate."""

from typing import Literal

import msgspec

from proxy.contract.gates import MAX_CALLERS, GateState, RateGate
from proxy.contract.plan import Cause
from proxy.engine.portable.passing import Refused, Told
from proxy.engine.portable.rate import Rate
from tests.support.vectors import Vector, vectors


class RateStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `who` does at a moment and what comes of it, another spec, or what is to `see`."""

    at: float
    do: Literal["enter", "leave", "change", "open", "see"]
    who: str = ""
    then: Literal["", "inside", "refused"] = ""
    detail: str = ""
    cause: str = ""
    per_s: float = 0.0
    burst: int = 0
    inside: int = 0
    left: dict[str, int] = msgspec.field(default_factory=dict)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    fields: dict[str, str] = msgspec.field(default_factory=dict)
    again_s: float = 0.0


class RateCalls(Vector, frozen=True, kw_only=True):
    per_s: float
    burst: int
    is_shared: bool = False
    name: str = ""
    policy: str = ""
    steps: list[RateStep]


@vectors("gates", "rate", RateCalls)
def test_rate_lets_each_caller_in_as_often_as_it_says(vector: RateCalls) -> None:
    def of(per_s: float, burst: int) -> RateGate:
        return RateGate(
            per_s=per_s,
            burst=burst,
            is_shared=vector.is_shared,
            name=vector.name,
            policy=vector.policy,
        )

    gate = Rate(of(vector.per_s, vector.burst))
    for step in vector.steps:
        match step.do:
            case "enter":
                found = gate.enter(step.at, 0.0, step.who)
                if isinstance(found, Refused):
                    assert (found.cause, step.then, found.detail) == (Cause.RATE, "refused", step.detail)
                    told = found.told or Told((), 0.0)
                    fields = {name.decode(): value.decode() for name, value in told.headers}
                    assert (fields, told.again_s) == (step.fields, step.again_s), step
                else:
                    assert (found, step.then) == (gate, "inside"), step
            case "leave":
                gate.leave(Cause(step.cause) if step.cause else None, step.at)
            case "change":
                gate.change(of(step.per_s, step.burst))
            case "open":
                gate.open()
            case "see":
                state = GateState(inside=step.inside, waiting=0, left=step.left, refused=step.refused)
                assert gate.state() == state, step


def test_rate_forgets_callers_before_they_are_too_many() -> None:
    gate = Rate(RateGate(per_s=1.0, burst=1))
    for number in range(5 * MAX_CALLERS):
        gate.enter(0.0, 0.0, str(number))
        assert len(gate._young) <= MAX_CALLERS
        assert len(gate._old) <= MAX_CALLERS
    assert isinstance(gate.enter(0.0, 0.0, str(5 * MAX_CALLERS - 1)), Refused)
