"""Circuit breakers of the portable engine, by the table that the native engine's pass too."""

from typing import Literal

import msgspec

from policies.reading.trip import compile_trip
from proxy.contract.breakers import (
    MAX_TARGETS,
    BreakerGlance,
    BreakerSpec,
    BreakerTurn,
    BreakerUse,
    Counts,
)
from proxy.contract.head import RequestHead
from proxy.engine.portable.breakers import Admitted, Asking, Breaker, Breakers
from proxy.engine.portable.passing import Refused
from proxy.engine.portable.trips import is_true
from tests.support.vectors import Vector, vectors

Numbers = tuple[int, int, int, int, int]
Program = tuple[tuple[str, int | float], ...]


class Trip(Vector, frozen=True, kw_only=True):
    trip: str
    program: Program
    counters: Numbers
    is_true: bool


@vectors("breakers", "trips", Trip)
def test_trip_means_what_cel_has_it_mean(vector: Trip) -> None:
    assert compile_trip(vector.trip) == vector.program
    assert is_true(vector.program, vector.counters) == vector.is_true


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call of a method begins (`ask`) or ends (`hear`) at a moment, and what comes of it; or what is to `see`."""

    at: float
    do: Literal["ask", "hear", "see"]
    call: str = ""
    method: str = "/m"
    target: str = "a"
    then: Literal["in", "breaker-open", "breaker-probing"] = "in"
    detail: str = ""
    failed: bool = False
    turned: tuple[str, str, Numbers] | None = None
    state: str = ""
    counters: Numbers = (0, 0, 0, 0, 0)
    left: float = 0.0


class Case(Vector, frozen=True, kw_only=True):
    max_requests: int
    interval: float
    timeout: float
    trip: str
    program: Program
    methods: int
    steps: list[Step]


def a_spec(trip: str = "consecutiveFailures >= 2", methods: int = 100) -> BreakerSpec:
    return BreakerSpec(
        policy="guard", max_requests=1, interval_s=0, timeout_s=2, trip=compile_trip(trip), methods=methods
    )


@vectors("breakers", "breakers", Case)
def test_breaker_opens_probes_and_closes(vector: Case) -> None:
    turns: list[BreakerTurn] = []
    breakers = Breakers(turns.append)
    spec = BreakerSpec(
        policy="guard",
        max_requests=vector.max_requests,
        interval_s=vector.interval,
        timeout_s=vector.timeout,
        trip=vector.program,
        methods=vector.methods,
    )
    assert compile_trip(vector.trip) == vector.program
    breakers.set("a", spec)
    calls: dict[str, Admitted] = {}
    for step in vector.steps:
        if step.do == "hear":
            breaker, generation = calls.pop(step.call)
            breaker.hear(step.at, generation, is_failure=step.failed)
        else:
            found = breakers.find(BreakerUse(name="a", target=step.target), step.method, step.at)
            assert found is not None
            _look(found, step, calls)
        turned = [(turn.before, turn.after, tuple(turn.counts)) for turn in turns]
        assert turned == ([] if step.turned is None else [step.turned]), step
        turns.clear()


def _look(breaker: Breaker, step: Step, calls: dict[str, Admitted]) -> None:
    if step.do == "see":
        assert breaker.glance(step.at) == (step.state, Counts(*step.counters), step.left), step
        return
    asked = breaker.ask(step.at)
    if isinstance(asked, Refused):
        assert (asked.cause.value, asked.detail) == (step.then, step.detail), step
    else:
        assert step.then == "in", step
        calls[step.call] = asked


def a_head(path: str = "/m") -> RequestHead:
    return RequestHead("http", "http1", "none", "GET", "a", path.encode(), path, b"", ())


def test_an_equal_spec_keeps_the_state_and_another_does_not() -> None:
    turns: list[BreakerTurn] = []
    breakers, use = Breakers(turns.append), BreakerUse(name="a", target="a")

    def failed() -> Asking:
        asking = Asking()
        assert asking.ask(breakers, use, a_head(), 0.0) is None
        asking.tell(0.0, is_failure=True)
        return asking

    breakers.set("a", a_spec())
    assert failed().met == ("closed", "closed")
    breakers.set("a", a_spec())
    assert failed().met == ("closed", "open")
    assert turns == [BreakerTurn("a", "a", "/m", "closed", "open", Counts(2, 0, 2, 0, 2))]
    assert [(one.state, one.left_s) for one in breakers.glances(0.5)] == [("open", 1.5)]
    breakers.set("a", a_spec("consecutiveFailures >= 1"))
    assert list(breakers.glances(0.5)) == []
    assert failed().met == ("closed", "open")
    breakers.set("a", None)
    assert failed().met is None


def test_a_call_asks_once_for_attempts_that_are_one_to_the_breaker() -> None:
    breakers, use, asking = (
        Breakers(lambda _: None),
        BreakerUse(name="a", target="a", form="method"),
        Asking(),
    )
    breakers.set("a", a_spec())
    for _ in range(3):
        assert asking.ask(breakers, use, a_head("/v1.0/invoke/a/method/orders/1"), 0.0) is None
    asking.tell(0.0, is_failure=True)
    asking.tell(0.0, is_failure=True)
    assert list(breakers.glances(0.0)) == [
        BreakerGlance("a", "a", "/orders/1", "closed", Counts(1, 0, 1, 0, 1), 0.0)
    ]


def test_the_state_is_told_as_it_was_found_and_left() -> None:
    breakers, use = Breakers(lambda _: None), BreakerUse(name="a", target="a", method="one")
    breakers.set("a", a_spec("true"))
    met = []
    for at, is_failure in ((0.0, True), (1.0, False), (3.0, False), (3.0, False)):
        asking = Asking()
        asking.ask(breakers, use, a_head(), at)
        asking.tell(at, is_failure=is_failure)
        met.append(asking.met)
    assert met == [("closed", "open"), ("open", "open"), ("half-open", "closed"), ("closed", "closed")]


def test_targets_are_forgotten_before_they_are_too_many() -> None:
    breakers = Breakers(lambda _: None)
    breakers.set("", a_spec(methods=2))
    for target in range(2 * MAX_TARGETS):
        for method in ("/a", "/b", "/c"):
            breakers.find(BreakerUse(name="", target=str(target)), method, 0.0)
    assert len(list(breakers.glances(0.0))) == 2 * MAX_TARGETS
