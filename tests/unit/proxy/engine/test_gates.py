"""Gates of the kinds there are, and the way through those of a kind that waits by the clock, which no engine has yet."""

import asyncio
from typing import Literal

import msgspec

from proxy.contract.engine import Limits
from proxy.contract.gates import MAX_CALLERS, ConcurrencyGate, GateSpec, GateState, RateGate
from proxy.contract.plan import Cause
from proxy.engine.portable.carrier import Carrier
from proxy.engine.portable.gates import (
    Concurrency,
    Gates,
    Passage,
    Passed,
    Rate,
    Refused,
    Waiting,
)
from tests.conformance.harness import FixedTracing, Recorder
from tests.support.vectors import Vector, vectors


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `who` does at a moment and what comes of it, another spec, or what is to `see`. let_in: who waited and came in by it."""

    at: float
    chance: float = 0.0
    do: Literal["enter", "leave", "give_up", "change", "open", "see"]
    who: str = ""
    then: Literal["", "inside", "waits", "shed"] = ""
    detail: str = ""
    cause: str = ""
    let_in: list[str] = msgspec.field(default_factory=list)
    limit: int = 0
    queue: int = 0
    inside: int = 0
    waiting: int = 0
    left: dict[str, int] = msgspec.field(default_factory=dict)


class Calls(Vector, frozen=True, kw_only=True):
    limit: int
    queue: int
    steps: list[Step]


class Crowd:
    """Those who are at a gate. Mutable state: who is inside, who waits, and who came in since that was looked at."""

    def __init__(self, gate: Concurrency) -> None:
        self.gate = gate
        self.inside: dict[str, Passed] = {}
        self.waiting: dict[str, Waiting] = {}
        self.let_in: list[str] = []

    def enter(self, step: Step) -> None:
        found = self.gate.enter(step.at, step.chance, step.who)
        if isinstance(found, Refused):
            assert (found.cause, step.then, found.detail) == (Cause.SHED, "shed", step.detail), step
        elif isinstance(found, Waiting):
            assert (step.then, found.at) == ("waits", None), step
            self.waiting[step.who] = found
            found.tell = lambda passed: self.told(step.who, passed)
        else:
            assert step.then == "inside", step
            self.inside[step.who] = found

    def told(self, who: str, found: Passed | Refused) -> None:
        assert not isinstance(found, Refused)
        del self.waiting[who]
        self.inside[who] = found
        self.let_in.append(who)

    def take(self, step: Step) -> None:
        match step.do:
            case "enter":
                self.enter(step)
            case "leave":
                self.inside.pop(step.who).leave(Cause(step.cause) if step.cause else None)
            case "give_up":
                self.waiting.pop(step.who).cancel(Cause.CALLER_LEFT)
            case "change":
                self.gate.change(ConcurrencyGate(limit=step.limit, queue=step.queue))
            case "open":
                self.gate.open()
            case "see":
                state = GateState(inside=step.inside, waiting=step.waiting, left=step.left)
                assert self.gate.state() == state, step


@vectors("gates", "concurrency", Calls)
def test_concurrency_lets_in_as_many_as_there_is_room_for(vector: Calls) -> None:
    crowd = Crowd(Concurrency(ConcurrencyGate(limit=vector.limit, queue=vector.queue)))
    for step in vector.steps:
        crowd.let_in.clear()
        crowd.take(step)
        assert crowd.let_in == step.let_in, step


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


class RateCalls(Vector, frozen=True, kw_only=True):
    per_s: float
    burst: int
    steps: list[RateStep]


@vectors("gates", "rate", RateCalls)
def test_rate_lets_each_caller_in_as_often_as_it_says(vector: RateCalls) -> None:
    gate = Rate(RateGate(per_s=vector.per_s, burst=vector.burst))
    for step in vector.steps:
        match step.do:
            case "enter":
                found = gate.enter(step.at, 0.0, step.who)
                if isinstance(found, Refused):
                    assert (found.cause, step.then, found.detail) == (Cause.RATE, "refused", step.detail)
                else:
                    assert (found, step.then) == (gate, "inside"), step
            case "leave":
                gate.leave(Cause(step.cause) if step.cause else None)
            case "change":
                gate.change(RateGate(per_s=step.per_s, burst=step.burst))
            case "open":
                gate.open()
            case "see":
                assert gate.state() == GateState(inside=step.inside, waiting=0, left=step.left), step


def test_rate_forgets_callers_before_they_are_too_many() -> None:
    gate = Rate(RateGate(per_s=1.0, burst=1))
    for number in range(5 * MAX_CALLERS):
        gate.enter(0.0, 0.0, str(number))
        assert len(gate._young) <= MAX_CALLERS
        assert len(gate._old) <= MAX_CALLERS
    assert isinstance(gate.enter(0.0, 0.0, str(5 * MAX_CALLERS - 1)), Refused)


class Slow:
    """Has everybody wait for a moment, and then lets them in or not. Keeps what it was told."""

    def __init__(self, wait_s: float, refusal: Refused | None = None) -> None:
        self.wait_s = wait_s
        self.refusal = refusal
        self.left: list[Cause | None] = []
        self.chances: list[float] = []

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        self.chances.append(chance)
        return Waiting(now + self.wait_s, self.refusal or self)

    def leave(self, cause: Cause | None) -> None:
        self.left.append(cause)

    def change(self, spec: GateSpec) -> None:
        raise AssertionError(spec)

    def open(self) -> None:
        """Nobody waits for it."""

    def state(self) -> GateState:
        return GateState(inside=0, waiting=0, left={})


class Standing(Gates):
    """Gates of the test's own making."""

    def __init__(self, *gates: Slow) -> None:
        super().__init__()
        self._known = {str(number): (ConcurrencyGate, gate) for number, gate in enumerate(gates)}


def way(*gates: Slow) -> tuple[Passage, asyncio.Future[Refused | None]]:
    """Through these gates, and what comes of it."""
    carrier = Carrier(Limits(), Recorder(), FixedTracing(), str, lambda _: None)
    carrier.gates = Standing(*gates)
    found: asyncio.Future[Refused | None] = asyncio.get_running_loop().create_future()
    return Passage(carrier, [str(number) for number in range(len(gates))], "who", found.set_result), found


async def test_wait_by_the_clock_ends_and_the_next_gate_is_asked() -> None:
    first, second = Slow(0.01), Slow(0.0)
    passage, found = way(first, second)
    passage.go_on()
    assert (len(first.chances), len(second.chances)) == (1, 0)
    assert await found is None
    assert all(0 <= chance < 1 for chance in (*first.chances, *second.chances))
    passage.leave(Cause.STATUS)
    assert (first.left, second.left) == ([Cause.STATUS], [Cause.STATUS])


async def test_refusal_after_a_wait_ends_the_way() -> None:
    refusal = Refused(Cause.SHED, "too many")
    first, second = Slow(0.0, refusal), Slow(0.0)
    passage, found = way(first, second)
    passage.go_on()
    assert await found == refusal
    assert (first.left, second.chances) == ([], [])


async def test_wait_that_is_given_up_gives_back_what_would_have_come_of_it() -> None:
    gate = Slow(30.0)
    passage, found = way(gate)
    passage.go_on()
    passage.leave(Cause.CALLER_LEFT)
    assert (gate.left, found.done()) == ([Cause.CALLER_LEFT], False)
