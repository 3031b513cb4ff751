"""The user's own rule of which spans are kept: asked apart from the loop, bounded, and never able to hurt a call."""

import asyncio
import threading
from collections.abc import Callable, Mapping

import pytest

from telemetry.errors import TailCallableError
from telemetry.metrics import Meters
from telemetry.report import Call
from telemetry.tail import WAITING, TailHook, Wants, facts_of, load
from tests.unit.telemetry.building import UNSAMPLED, KeptLines, a_call


class Hooked:
    """A hook and what came of it."""

    def __init__(self, wants: Wants) -> None:
        self.kept: list[Call] = []
        self.meters = Meters("web", "shop")
        self.log = KeptLines()
        self.hook = TailHook("m:f", wants, self._keep, self.meters, self.log.get("tail"))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for the thread, which tells the loop of its answers."""
        async with asyncio.timeout(30.0):
            while not is_so():  # noqa: ASYNC110 - the hook has no event for it
                await asyncio.sleep(0)

    def _keep(self, call: Call) -> None:
        self.kept.append(call)

    def lost(self, reason: str) -> float:
        """How many calls got no answer."""
        return self.meters.exports.tail_lost.slot(reason).value


def call(number: int) -> Call:
    """An unsampled call that took so many milliseconds."""
    return a_call(context=UNSAMPLED, ended_ns=a_call().started_ns + number * 1_000_000)


async def test_call_that_the_callable_wants_is_kept_and_the_loop_is_not_asked() -> None:
    threads: set[int] = set()

    def wants(facts: Mapping[str, object]) -> bool:
        threads.add(threading.get_ident())
        return facts["duration_ms"] == 7.0

    hooked = Hooked(wants)
    for number in range(10):
        hooked.hook.offer(call(number))
    await hooked.until(lambda: bool(hooked.kept))
    assert [facts_of(one)["duration_ms"] for one in hooked.kept] == [7.0]
    assert threads.isdisjoint({threading.get_ident()})
    hooked.hook.close()


async def test_callable_that_raises_is_counted_each_time_and_logged_once() -> None:
    def wants(facts: Mapping[str, object]) -> bool:
        if facts["duration_ms"] != 99.0:
            raise ValueError("why")
        return True

    hooked = Hooked(wants)
    for number in (1, 2, 3, 99):
        hooked.hook.offer(call(number))
    await hooked.until(lambda: bool(hooked.kept) and hooked.lost("raised") == 3)
    (line,) = hooked.log.lines
    assert (line["callable"], line["reason"]) == ("m:f", "ValueError: why")
    hooked.hook.close()


async def test_callable_that_never_answers_costs_its_queue_alone() -> None:
    released = threading.Event()
    hooked = Hooked(lambda _: released.wait(60.0))
    for number in range(WAITING + 5):
        hooked.hook.offer(call(number))
    assert hooked.lost("queue-full") == 5
    hooked.hook.close()
    released.set()
    await hooked.until(lambda: len(hooked.kept) == WAITING)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("no_such_module:f", "ModuleNotFoundError"),
        ("json:nothing", "AttributeError"),
        ("json:__doc__", "not callable"),
    ],
)
def test_callable_that_can_not_be_loaded_says_why(reference: str, why: str) -> None:
    with pytest.raises(TailCallableError, match=why) as met:
        load(reference)
    assert reference in str(met.value)


def test_callable_is_found_by_module_and_name() -> None:
    assert load("json:JSONEncoder.default") is not None
