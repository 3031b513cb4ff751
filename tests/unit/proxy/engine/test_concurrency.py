"""Gates by how many are inside."""

from typing import Literal

import msgspec

from proxy.contract.gates import AdaptiveGate, ConcurrencyGate, EachGate, GateState
from proxy.contract.plan import Cause
from proxy.engine.portable.concurrency import Adaptive, Concurrency, Each, Stay
from proxy.engine.portable.passing import Passed, Refused, Waiting
from tests.support.vectors import Vector, vectors


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `who` does at a moment and what comes of it, another spec, or what is to `see`.

    let_in, shed: who waited and came in by it, or not.
    """

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
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    shed: list[str] = msgspec.field(default_factory=list)


class Calls(Vector, frozen=True, kw_only=True):
    limit: int
    queue: int
    newest_first: bool = False
    steps: list[Step]


class Crowd:
    """Those who are at a gate. Mutable state: who is inside, who waits, and who came in since that was looked at."""

    def __init__(self, gate: Concurrency) -> None:
        self.gate = gate
        self.inside: dict[str, Passed] = {}
        self.waiting: dict[str, Waiting] = {}
        self.let_in: list[str] = []
        self.shed: list[str] = []

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
        del self.waiting[who]
        if isinstance(found, Refused):
            self.shed.append(who)
            return
        self.inside[who] = found
        self.let_in.append(who)

    def take(self, step: Step) -> None:
        match step.do:
            case "enter":
                self.enter(step)
            case "leave":
                self.inside.pop(step.who).leave(Cause(step.cause) if step.cause else None, step.at)
            case "give_up":
                self.waiting.pop(step.who).cancel(Cause.CALLER_LEFT, step.at)
            case "change":
                self.gate.change(ConcurrencyGate(limit=step.limit, queue=step.queue))
            case "open":
                self.gate.open()
            case "see":
                state = GateState(
                    inside=step.inside, waiting=step.waiting, left=step.left, refused=step.refused
                )
                assert self.gate.state() == state, step


@vectors("gates", "concurrency", Calls)
def test_concurrency_lets_in_as_many_as_there_is_room_for(vector: Calls) -> None:
    spec = ConcurrencyGate(limit=vector.limit, queue=vector.queue, newest_first=vector.newest_first)
    crowd = Crowd(Concurrency(spec))
    for step in vector.steps:
        crowd.let_in.clear()
        crowd.shed.clear()
        crowd.take(step)
        assert (crowd.let_in, crowd.shed) == (step.let_in, step.shed), step


def test_wait_at_a_gate_ends_by_the_clock_where_it_says_so() -> None:
    gate = Concurrency(ConcurrencyGate(limit=0, queue=2, wait_s=0.1))
    heard: list[Passed | Refused] = []
    waiting = gate.enter(5.0, 0.0, "a")
    assert isinstance(waiting, Waiting)
    waiting.tell = heard.append
    assert waiting.at == 5.1
    waiting.expire()
    waiting.expire()
    assert heard == [Refused(Cause.SHED, "no room within 0.1 s")]
    assert gate.state() == GateState(inside=0, waiting=0, left={}, refused={"queue-timeout": 1})


def test_once_one_waited_too_long_who_came_last_comes_in_first_until_nobody_waits() -> None:
    gate = Concurrency(ConcurrencyGate(limit=1, queue=8, wait_s=0.1, newest_first=True))
    let_in: list[str] = []

    def enter(now: float, who: str) -> Waiting:
        found = gate.enter(now, 0.0, who)
        assert isinstance(found, Waiting)
        found.tell = lambda passed: None if isinstance(passed, Refused) else let_in.append(who)
        return found

    gate.enter(0.0, 0.0, "inside")
    late = enter(0.0, "late")
    enter(0.05, "b")
    late.expire()
    enter(0.1, "c")
    gate.leave(None, 0.1)
    gate.leave(None, 0.2)
    assert let_in == ["c", "b"]
    enter(0.3, "d")
    enter(0.3, "e")
    gate.leave(None, 0.35)
    assert let_in == ["c", "b", "d"]


def test_adaptive_gate_measures_and_then_lets_in_more() -> None:
    gate = Adaptive(AdaptiveGate(queue=0))
    now = 0.0
    for _ in range(50):
        inside = [gate.enter(now, 0.5, "") for _ in range(3)]
        assert isinstance(gate.enter(now, 0.5, ""), Refused)
        now += 0.01
        for one in inside:
            assert not isinstance(one, Waiting | Refused)
            one.leave(None, now)
        if gate.state().limit != 3:
            break
    assert (gate.state().limit, gate.state().inside) == (10, 0)


def test_adaptive_gate_goes_by_the_time_until_answers_begin_and_not_by_streams() -> None:
    """The limit falls where answers begin late, and not where they only end late."""
    limits: dict[str, int | None] = {}
    for kind in ("late", "prompt", "streaming"):
        gate = Adaptive(AdaptiveGate(queue=0))
        now = 0.0
        for turn in range(400):
            inside = [gate.enter(now, 0.5, "") for _ in range(3)]
            began, now = now + 0.01, now + (0.01 if turn < 100 else 1.0)
            for one in inside:
                assert isinstance(one, Stay)
                one.begun = {"late": now, "prompt": began, "streaming": "streaming"}[kind]  # type: ignore[assignment]
                if kind == "streaming" and turn < 100:
                    one.begun = began
                one.leave(None, now)
            if turn == 100:
                assert gate.state().limit != 3
        limits[kind] = gate.state().limit
    assert (limits["prompt"], limits["streaming"]) == (10, 10)
    assert (limits["late"] or 0) < 10


def test_adaptive_gate_that_is_taken_down_lets_all_in() -> None:
    gate = Adaptive(AdaptiveGate(queue=1, min_limit=1))
    let_in: list[Passed | Refused] = []
    first, second = gate.enter(0.0, 0.5, ""), gate.enter(0.0, 0.5, "")
    assert not isinstance(first, Waiting | Refused)
    assert isinstance(second, Waiting)
    second.tell = let_in.append
    gate.change(AdaptiveGate(queue=1, min_limit=1, max_limit=5))
    gate.open()
    assert not isinstance(let_in[0], Refused)
    let_in[0].leave(None, 1.0)
    first.leave(Cause.STATUS, 1.0)
    assert gate.state().left == {"": 1, "status": 1}


def test_each_caller_has_so_many_inside_and_none_that_left_is_remembered() -> None:
    gate = Each(EachGate(limit=2))
    first, second = gate.enter(0.0, 0.0, "a"), gate.enter(0.0, 0.0, "a")
    assert gate.enter(0.0, 0.0, "a") == Refused(Cause.RATE, "a has as many as it may (limit 2)")
    other = gate.enter(0.0, 0.0, "b")
    for one in (first, second, other):
        assert not isinstance(one, Waiting | Refused)
        one.leave(None, 1.0)
    assert gate.state() == GateState(inside=0, waiting=0, left={"": 3}, refused={"connections": 1})
    assert not gate._inside
    gate.change(EachGate(limit=1))
    assert not isinstance(gate.enter(0.0, 0.0, "a"), Refused)
    gate.open()
    assert not isinstance(gate.enter(0.0, 0.0, "a"), Refused)
