"""Taps: streams of what calls come to, one for each reader. Each has a queue of its own, which drops what its reader does not take in time.

Without a tap nothing here is asked for but whether one is open; with one, engines tell of calls as they begin and are answered, and report
every end by itself. What a tap shows of a call it shows of all of it: its rate and its sample count calls, not events.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from proxy.contract.head import Headers
from proxy.contract.outcome import Outcome
from proxy.contract.watching import AnswerBegun, CallBegun, Watch
from proxy.control.tap_events import end_of, request_of, response_of
from proxy.control.tap_filters import TapFilter, parse_filter
from proxy.errors import TooManyTapsError
from telemetry.report import Call
from telemetry.series import Counter, Gauge

MAX_TAPS = 8
MAX_UNREAD = 2_048  # events of one tap that its reader has not taken yet
MAX_UNDER_WAY = 16_384  # calls that are known to have begun; of others only the end is shown
_PIECE = 64  # events handed on together
_TELL_S = 1.0  # how often a tap says what it left out, and that it is there still
BEYOND_RATE, QUEUE_FULL, NOT_TOLD = "max-rps", "queue-full", "engine-busy"
_ID_CHARS = 4  # of the sidecar's instance


class _Tap:
    """One reader's queue.

    Mutable state: encoded events, how many calls were left out since that was last told, and what the rate allows.
    """

    def __init__(self, wanted: TapFilter, clock: Callable[[], float], opened_ns: int) -> None:
        self.wanted = wanted
        self.opened_ns = opened_ns
        self.events: deque[bytes] = deque()
        self.skipped = {BEYOND_RATE: 0, QUEUE_FULL: 0, NOT_TOLD: 0}
        self.news = asyncio.Event()
        self._clock = clock
        self._most = max(wanted.max_rps, 1.0)
        self._allowed, self._since = self._most, clock()

    def no_room(self) -> str | None:
        """Why one more call is left out; None: it is taken."""
        if len(self.events) >= MAX_UNREAD:
            return QUEUE_FULL
        now = self._clock()
        self._allowed = min(self._most, self._allowed + (now - self._since) * self.wanted.max_rps)
        self._since = now
        if self._allowed < 1:
            return BEYOND_RATE
        self._allowed -= 1
        return None

    def put(self, told: Mapping[str, object]) -> bool:
        """Have an event read; False: there is no room."""
        if len(self.events) >= MAX_UNREAD:
            return False
        self.events.append(_line(told))
        self.news.set()
        return True

    def take(self) -> bytes:
        """The next lines, oldest first; empty where there are none."""
        return b"".join(self.events.popleft() for _ in range(min(_PIECE, len(self.events))))

    def told_skipped(self) -> bytes:
        """The line that says how many were left out since the last one; empty where none were."""
        if not any(self.skipped.values()):
            return b""
        left_out, self.skipped = self.skipped, dict.fromkeys(self.skipped, 0)
        return _line({"event": "skipped", "calls": sum(left_out.values()), "reasons": left_out})


class _UnderWay:
    """A call that began.

    Mutable state: what is known of it, its answer, and by which taps it is shown (a tap that is not in it has not decided).
    """

    def __init__(self, call: Call, begun: CallBegun) -> None:
        self.call = call
        self.fields = begun.head.headers
        self.answer: AnswerBegun | None = None
        self.is_shown: dict[_Tap, bool] = {}


class Taps:
    """The open taps of one sidecar, `MAX_TAPS` at most.

    Mutable state: those taps, the calls under way while there are any, and `obfuscate`, whether paths are hidden as in the access log.
    about: of the sidecar, for the first line. `watch` has the engine tell of calls, and is set before a tap is opened. `secret_fields`:
    names of headers that are never shown, beside those that say so.
    """

    def __init__(
        self,
        looking: Gauge,
        dropped: Counter,
        about: Mapping[str, object],
        *,
        obfuscate: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.obfuscate = obfuscate
        self.watch: Callable[[Watch | None], None] = lambda _: None
        self.secret_fields: Callable[[], frozenset[bytes]] = frozenset
        self._looking = looking
        self._dropped = dropped
        self._about = about
        self._prefix = str(about.get("instance", ""))[:_ID_CHARS]
        self._clock = clock
        self._wall_ns = wall_ns
        self._open: set[_Tap] = set()
        self._watched: Watch | None = None
        self._under_way: dict[int, _UnderWay] = {}

    @property
    def is_open(self) -> bool:
        """Whether anybody looks."""
        return bool(self._open)

    # --- what engines tell

    def begun(self, call: Call, begun: CallBegun) -> None:
        """Show the request of a call to whoever wants it."""
        if self._watched is None:
            return
        if (held := self._under_way.get(begun.number)) is not None:
            held.call = call  # its request is shown, and now it is decided
            return
        if len(self._under_way) >= MAX_UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]  # most likely its end was lost
        known = self._under_way[begun.number] = _UnderWay(call, begun)
        for tap in self._open:
            self._begin(tap, begun.number, known)

    def answered(self, answer: AnswerBegun) -> None:
        """Show the head of its answer."""
        known = self._under_way.get(answer.number)
        if known is not None and known.answer is None:
            known.answer = answer
            for tap in self._open:
                self._answer(tap, known)

    def ended(self, call: Call, outcome: Outcome) -> None:
        """Show the end of a call."""
        known = self._under_way.pop(outcome.number, None)
        told: dict[str, Any] = {}
        for tap in self._open:
            is_shown = None if known is None else known.is_shown.get(tap)
            if known is None and call.ended_ns < tap.opened_ns:
                continue  # an engine tells of it late
            if is_shown is None:
                may_be = known is not None or tap.wanted.may_show(call)
                is_shown = may_be and tap.wanted.shows_end(call) and self._takes(tap)
            if is_shown:
                told = told or end_of(call, outcome)
                self._put(tap, "end", outcome.number, call, told)

    def lost(self, news: int) -> None:
        """The engine had no room for so much news of calls."""
        for tap in self._open:
            self._skip(tap, NOT_TOLD, news)

    # --- one call and one tap

    def _begin(self, tap: _Tap, number: int, known: _UnderWay) -> None:
        if not tap.wanted.may_show(known.call):
            known.is_shown[tap] = False
        elif tap.wanted.is_of_requests:
            told = request_of(known.call, self._wanted(tap, known.fields))
            known.is_shown[tap] = self._takes(tap) and self._put(tap, "request", number, known.call, told)

    def _answer(self, tap: _Tap, known: _UnderWay) -> None:
        call, answer = known.call, known.answer
        if answer is None:
            return
        is_shown = known.is_shown.get(tap)
        if is_shown is None and tap.wanted.shows_answer(call, answer.status, answer.head_ns):
            is_shown = known.is_shown[tap] = self._takes(tap)
        if is_shown:
            told = response_of(call, answer.status, answer.head_ns, self._wanted(tap, answer.fields))
            known.is_shown[tap] = self._put(tap, "response", answer.number, call, told)

    def _wanted(self, tap: _Tap, fields: Headers) -> Headers:
        if not tap.wanted.headers or not fields:
            return ()
        secret = self.secret_fields()
        return tuple(field for field in fields if field[0] in tap.wanted.headers and field[0] not in secret)

    def _takes(self, tap: _Tap) -> bool:
        why = tap.no_room()
        if why is not None:
            self._skip(tap, why)
        return why is None

    def _put(self, tap: _Tap, event: str, number: int, call: Call, told: Mapping[str, Any]) -> bool:
        first = {
            "event": event,
            "id": f"{self._prefix}:{number}",
            "under_way": call.started_ns < tap.opened_ns,
        }
        is_put = tap.put({**first, **told, **({"path": ""} if self.obfuscate else {})})
        if not is_put:
            self._skip(tap, QUEUE_FULL)
        return is_put

    def _skip(self, tap: _Tap, why: str, calls: int = 1) -> None:
        tap.skipped[why] += calls
        self._dropped.add(why, amount=calls)

    # --- readers

    def opener(
        self, watch: Callable[[Watch | None], None], secret_fields: Callable[[], frozenset[bytes]]
    ) -> Callable[[Mapping[str, list[str]]], AsyncGenerator[bytes]]:
        """What opens taps on an engine that tells of calls by `watch`."""
        self.watch, self.secret_fields = watch, secret_fields
        return self.open

    def open(self, query: Mapping[str, list[str]]) -> AsyncGenerator[bytes]:
        """Lines of JSON: what is tapped, what calls under way and then each new one come to, and what was left out, until it is closed.

        Raises: ValueError, where a filter can't be read; TooManyTapsError.
        """
        wanted = parse_filter(query)
        if wanted.path and self.obfuscate:
            raise ValueError("path: paths are hidden here (apiLogging.obfuscateURLs)")
        if len(self._open) >= MAX_TAPS:
            raise TooManyTapsError(MAX_TAPS)
        return self._lines(wanted)

    async def _lines(self, wanted: TapFilter) -> AsyncGenerator[bytes]:
        tap = _Tap(wanted, self._clock, self._wall_ns())
        self._open.add(tap)
        self._looking.set(len(self._open))
        try:
            yield _line({"event": "open", **self._about, "max_rps": wanted.max_rps, "sample": wanted.sample})
            self._show_under_way(tap)
            while True:
                if lines := tap.take():
                    yield lines
                    continue
                tap.news.clear()
                if lines := tap.told_skipped():
                    yield lines
                    continue
                try:
                    async with asyncio.timeout(_TELL_S):
                        await tap.news.wait()
                except TimeoutError:
                    continue
        finally:
            self._open.discard(tap)
            self._looking.set(len(self._open))
            for known in self._under_way.values():
                known.is_shown.pop(tap, None)
            self._look()

    def _show_under_way(self, tap: _Tap) -> None:
        """Calls that other taps know; the engine tells of the rest."""
        for number, known in self._under_way.items():
            self._begin(tap, number, known)
            self._answer(tap, known)
        self._look()

    def _look(self) -> None:
        """Have the engine tell what the open taps want: nothing of calls under way where they show only ends."""
        tellers = [tap.wanted for tap in self._open if not tap.wanted.ends]
        watch = Watch(fields=frozenset().union(*(one.headers for one in tellers))) if tellers else None
        if watch is None:
            self._under_way.clear()
        if watch != self._watched:
            self._watched = watch
            self.watch(watch)


def _line(told: Mapping[str, object]) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
