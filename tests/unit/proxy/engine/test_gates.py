"""The way through gates that wait by the clock, and the gates that stand."""

import asyncio

from proxy.contract.engine import Limits
from proxy.contract.gates import ConcurrencyGate, GateSpec, GateState
from proxy.contract.plan import Cause
from proxy.engine.portable.carrier import Carrier
from proxy.engine.portable.gates import Gates, Passage
from proxy.engine.portable.passing import Passed, Refused, Waiting
from tests.conformance.harness import FixedTracing, Recorder


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

    def leave(self, cause: Cause | None, now: float) -> None:
        self.left.append(cause)

    def change(self, spec: GateSpec) -> None:
        raise AssertionError(spec)

    def open(self) -> None:
        """Nobody waits for it."""

    def state(self) -> GateState:
        return GateState(inside=0, waiting=0, left={})

    def note_lag(self, lag_s: float) -> None:
        """Of no concern here."""


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
