"""Taps: who sees which call, what is left out, and what is told of that."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from proxy.control.tapping import MAX_TAPS, MAX_UNREAD, Taps
from proxy.errors import TooManyTapsError
from telemetry.metrics import Meters
from tests.unit.proxy.control.test_observer import outcome, told


class Tapped:
    """Taps, and the metrics they count in; the clock stands still."""

    def __init__(self, *, obfuscate: bool = False) -> None:
        self.now = 0.0
        self.meters = Meters("web", "shop")
        self.taps = Taps(
            self.meters.taps,
            self.meters.tap_dropped,
            {"app_id": "web"},
            obfuscate=obfuscate,
            clock=lambda: self.now,
        )

    async def open(self, **query: str) -> AsyncGenerator[bytes]:
        """One more tap, whose first line was read."""
        lines = self.taps.open({key.replace("_", "-"): [text] for key, text in query.items()})
        first = json.loads(await anext(lines))
        assert (first["event"], first["app_id"]) == ("open", "web")
        return lines

    def call(self, times: int = 1, target: str = "/x") -> None:
        ended = outcome(target)
        for _ in range(times):
            self.taps.offer(told(ended), ended)

    def dropped(self, reason: str) -> float:
        return self.meters.tap_dropped.slot(reason).value


async def read(lines: AsyncGenerator[bytes]) -> list[dict[str, Any]]:
    """The events of the next piece."""
    return [json.loads(line) for line in (await anext(lines)).splitlines()]


async def test_every_tap_is_shown_a_call_that_its_filter_lets_through() -> None:
    tapped = Tapped()
    all_calls, others = await tapped.open(), await tapped.open(to="other")
    tapped.call()
    (event,) = await read(all_calls)
    assert (event["event"], event["src"], event["dst"], event["path"]) == ("call", "web", "cart", "/x")
    await all_calls.aclose()
    await others.aclose()


async def test_tap_is_open_until_its_lines_are_closed() -> None:
    tapped = Tapped()
    found = [(tapped.taps.is_open, tapped.meters.taps.slot().value)]
    lines = await tapped.open()
    found.append((tapped.taps.is_open, tapped.meters.taps.slot().value))
    await lines.aclose()
    found.append((tapped.taps.is_open, tapped.meters.taps.slot().value))
    assert found == [(False, 0), (True, 1), (False, 0)]


async def test_calls_beyond_the_rate_are_counted_and_told() -> None:
    tapped = Tapped()
    lines = await tapped.open(max_rps="2")
    tapped.call(times=5)
    tapped.now += 1.0
    tapped.call(times=3)
    assert len(await read(lines)) == 4
    assert await read(lines) == [{"event": "skipped", "calls": 4, "reasons": {"max-rps": 4, "queue-full": 0}}]
    assert tapped.dropped("max-rps") == 4
    await lines.aclose()


async def test_rate_below_one_a_second_shows_a_call_now_and_then() -> None:
    tapped = Tapped()
    lines = await tapped.open(max_rps="0.5")
    tapped.call(times=2)
    tapped.now += 2.0
    tapped.call()
    assert len(await read(lines)) == 2
    await lines.aclose()


async def test_reader_that_does_not_read_loses_calls_and_is_told_how_many() -> None:
    tapped = Tapped()
    lines = await tapped.open(max_rps="1000000")
    tapped.call(times=MAX_UNREAD + 7)
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["event"] == "call":
        seen += await read(lines)
    assert len(seen) == MAX_UNREAD + 1
    assert seen[-1]["reasons"] == {"max-rps": 0, "queue-full": 7}
    assert tapped.dropped("queue-full") == 7
    await lines.aclose()


async def test_more_taps_than_may_are_refused() -> None:
    tapped = Tapped()
    opened = [await tapped.open() for _ in range(MAX_TAPS)]
    with pytest.raises(TooManyTapsError, match="8 taps are open"):
        tapped.taps.open({})
    await opened.pop().aclose()
    opened.append(await tapped.open())
    for lines in opened:
        await lines.aclose()


async def test_hidden_paths_stay_hidden_and_can_not_be_guessed_by_a_filter() -> None:
    tapped = Tapped(obfuscate=True)
    lines = await tapped.open()
    tapped.call(target="/customers/77")
    (event,) = await read(lines)
    assert event["path"] == ""
    assert "77" not in json.dumps(event)
    with pytest.raises(ValueError, match="paths are hidden here"):
        tapped.taps.open({"path": ["/customers"]})
    await lines.aclose()
