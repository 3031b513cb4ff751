"""Taps: who sees what of which call, what is left out, and what is told of that."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.contract.head import Headers
from proxy.contract.watching import AnswerBegun, CallBegun, Watch
from proxy.control.tapping import MAX_TAPS, MAX_UNREAD, Taps
from proxy.errors import TooManyTapsError
from telemetry.metrics import Meters
from tests.unit.proxy.control.test_observer import LABELS, SPAN, outcome, told

NOW_NS = 50  # when taps are opened


class Tapped:
    """Taps, the metrics they count in, and what an engine is asked to tell; the clock stands still."""

    def __init__(self, *, obfuscate: bool = False) -> None:
        self.now = 0.0
        self.meters = Meters("web", "shop")
        self.watched: list[Watch | None] = []
        self.taps = Taps(
            self.meters.taps,
            self.meters.tap_dropped,
            {"app_id": "web", "instance": "ab12cd34"},
            obfuscate=obfuscate,
            clock=lambda: self.now,
            wall_ns=lambda: NOW_NS,
        )
        self.taps.watch = self.watched.append
        self._number = 0

    async def open(self, **query: str) -> AsyncGenerator[bytes]:
        """One more tap, whose first line was read, and which is at its calls."""
        lines = self.taps.open({key.replace("_", "-"): [text] for key, text in query.items()})
        first = json.loads(await anext(lines))
        assert (first["event"], first["app_id"]) == ("open", "web")
        return lines

    def begin(
        self, target: str = "/x", *, number: int, started_ns: int = 60, fields: Headers = (), **changes: Any
    ) -> None:
        """One call."""
        one = outcome(target, started_ns=started_ns)
        call = replace(told(one), status=0, head_ns=0, ended_ns=0, **changes)
        head = replace(one.head, headers=fields)
        self.taps.begun(
            call, CallBegun(number=number, head=head, labels=LABELS, trace=SPAN, started_ns=started_ns)
        )

    def answer(self, *, number: int, status: int = 200, head_ns: int = 70, fields: Headers = ()) -> None:
        """It is answered."""
        self.taps.answered(AnswerBegun(number=number, head_ns=head_ns, status=status, fields=fields))

    def end(self, target: str = "/x", *, number: int, **changes: Any) -> None:
        """It is over."""
        ended = outcome(target, **{"number": number, "started_ns": 60, "ended_ns": 80, **changes})
        self.taps.ended(told(ended), ended)

    def call(self, times: int = 1, target: str = "/x") -> None:
        """Whole calls."""
        for _ in range(times):
            self._number += 1
            self.begin(target, number=self._number)
            self.answer(number=self._number)
            self.end(target, number=self._number)

    def dropped(self, reason: str) -> float:
        return self.meters.tap_dropped.slot(reason).value


async def read(lines: AsyncGenerator[bytes]) -> list[dict[str, Any]]:
    """The events of the next piece."""
    return [json.loads(line) for line in (await anext(lines)).splitlines()]


def kinds(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What was told of which call."""
    return [(event["event"], event["id"]) for event in events]


async def begin_reading(tapped: Tapped, lines: AsyncGenerator[bytes]) -> None:
    """Until the tap is at its calls: it tells of one."""
    tapped.end(number=0)
    await read(lines)


async def test_every_tap_is_shown_a_call_that_its_filter_lets_through() -> None:
    tapped = Tapped()
    all_calls, others = await tapped.open(), await tapped.open(to="other")
    await begin_reading(tapped, all_calls)
    tapped.call()
    events = await read(all_calls)
    assert kinds(events) == [("request", "ab12:1"), ("response", "ab12:1"), ("end", "ab12:1")]
    for event in events:
        assert (event["src"], event["dst"], event["path"]) == ("web", "cart", "/x")
        assert not event["under_way"]
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
    await begin_reading(tapped, lines)
    tapped.now += 1.0
    tapped.call(times=5)
    tapped.now += 1.0
    tapped.call(times=3)
    assert len(await read(lines)) == 3 * 4
    reasons = {"max-rps": 4, "queue-full": 0, "engine-busy": 0}
    assert await read(lines) == [{"event": "skipped", "calls": 4, "reasons": reasons}]
    assert tapped.dropped("max-rps") == 4
    await lines.aclose()


async def test_rate_below_one_a_second_shows_a_call_now_and_then() -> None:
    tapped = Tapped()
    lines = await tapped.open(max_rps="0.5", ends="true")
    tapped.call(times=2)
    tapped.now += 2.0
    tapped.call()
    assert len(await read(lines)) == 2
    await lines.aclose()


async def test_reader_that_does_not_read_loses_calls_and_is_told_how_many() -> None:
    tapped = Tapped()
    lines = await tapped.open(max_rps="1000000", ends="true")
    tapped.call(times=MAX_UNREAD + 7)
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["event"] == "end":
        seen += await read(lines)
    assert len(seen) == MAX_UNREAD + 1
    assert seen[-1]["reasons"] == {"max-rps": 0, "queue-full": 7, "engine-busy": 0}
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
    for event in await read(lines):
        assert event["path"] == ""
        assert "77" not in json.dumps(event)
    with pytest.raises(ValueError, match="paths are hidden here"):
        tapped.taps.open({"path": ["/customers"]})
    await lines.aclose()


async def test_engine_tells_what_the_open_taps_want() -> None:
    tapped = Tapped()
    ends = await tapped.open(ends="true")
    await begin_reading(tapped, ends)
    assert not tapped.watched
    one = await tapped.open(headers="x-a")
    await begin_reading(tapped, one)
    other = await tapped.open(headers="X-B")
    await begin_reading(tapped, other)
    await other.aclose()
    await one.aclose()
    await ends.aclose()
    a, b = b"x-a", b"x-b"
    fields = [None if watch is None else set(watch.fields) for watch in tapped.watched]
    assert fields == [{a}, {a, b}, {a}, None]


async def test_headers_are_shown_to_who_asked_for_them_but_no_secret_one() -> None:
    tapped = Tapped()
    tapped.taps.secret_fields = lambda: frozenset({b"x-b"})
    one, other = await tapped.open(headers="x-a,x-b"), await tapped.open()
    for lines in (one, other):
        await begin_reading(tapped, lines)
    tapped.begin(number=1, fields=((b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")))
    tapped.answer(number=1, fields=((b"x-a", b"4"),))
    assert [event["headers"] for event in (await read(one))[-2:]] == [{"x-a": "1"}, {"x-a": "4"}]
    assert [event["headers"] for event in (await read(other))[-2:]] == [{}, {}]
    await one.aclose()
    await other.aclose()


async def test_filter_of_statuses_shows_no_request_and_the_rest_once_it_is_met() -> None:
    tapped = Tapped()
    lines = await tapped.open(status="5xx")
    tapped.end(number=0, status=500)
    await read(lines)
    for number, status in ((1, 200), (2, 503)):
        tapped.begin(number=number)
        tapped.answer(number=number, status=status)
        tapped.end(number=number, status=status)
    tapped.begin(number=3)
    tapped.end(number=3, status=502, head_ns=0)  # a proxy's answer
    assert kinds(await read(lines)) == [("response", "ab12:2"), ("end", "ab12:2"), ("end", "ab12:3")]
    await lines.aclose()


async def test_calls_under_way_are_listed_for_each_tap_and_say_so() -> None:
    tapped = Tapped()
    first = await tapped.open()
    await begin_reading(tapped, first)
    tapped.begin("/stream", number=1, started_ns=40)
    tapped.answer(number=1)
    second = await tapped.open()
    assert kinds(await read(second)) == [("request", "ab12:1"), ("response", "ab12:1")]
    tapped.end("/stream", number=1, started_ns=40)
    (end,) = await read(second)
    assert end["under_way"]
    assert [event["under_way"] for event in await read(first)] == [True] * 3
    await first.aclose()
    await second.aclose()


async def test_call_is_told_to_have_begun_once() -> None:
    tapped = Tapped()
    lines = await tapped.open()
    await begin_reading(tapped, lines)
    for _ in range(2):
        tapped.begin(number=1)
        tapped.answer(number=1)
    assert len(await read(lines)) == 2
    await lines.aclose()


async def test_call_that_was_held_is_told_with_what_was_decided() -> None:
    tapped = Tapped()
    lines = await tapped.open()
    await begin_reading(tapped, lines)
    tapped.begin(number=1, decision="")
    tapped.begin(number=1, decision="reason=rule")
    tapped.answer(number=1)
    told = [event for event in await read(lines) if event["id"].endswith(":1")]
    assert [(event["event"], event["decision"]) for event in told] == [
        ("request", ""),
        ("response", "reason=rule"),
    ]
    await lines.aclose()


async def test_end_of_a_call_that_was_left_out_is_left_out() -> None:
    tapped = Tapped()
    lines = await tapped.open(max_rps="1")
    await begin_reading(tapped, lines)
    tapped.begin(number=1)
    tapped.now += 5.0
    tapped.end(number=1)
    tapped.call()
    events = await read(lines)
    assert {event["event"] for event in events} == {"request", "response", "end"}
    assert len({event["id"] for event in events}) == 1
    await lines.aclose()


async def test_call_that_ended_before_the_tap_is_left_out() -> None:
    tapped = Tapped()
    lines = await tapped.open()
    tapped.end("/late", number=1, started_ns=NOW_NS - 9, ended_ns=NOW_NS - 1)
    tapped.end(number=2)
    assert kinds(await read(lines)) == [("end", "ab12:2")]
    await lines.aclose()


async def test_what_a_busy_engine_did_not_tell_is_counted() -> None:
    tapped = Tapped()
    lines = await tapped.open()
    await begin_reading(tapped, lines)
    tapped.taps.lost(3)
    (event,) = await read(lines)
    assert event["reasons"]["engine-busy"] == 3
    assert tapped.dropped("engine-busy") == 3
    await lines.aclose()


async def test_nothing_is_kept_of_calls_once_nobody_looks() -> None:
    tapped = Tapped()
    lines = await tapped.open()
    await begin_reading(tapped, lines)
    tapped.begin(number=1)
    await lines.aclose()
    tapped.begin(number=2)
    again = await tapped.open()
    tapped.end(number=2)
    assert kinds(await read(again)) == [("end", "ab12:2")]
    await again.aclose()
