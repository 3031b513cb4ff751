"""Taps: streams of calls as they end, one for each reader. Each has a queue of its own, which drops what its reader does not take in time.

Without a tap nothing here is asked for but whether one is open; with one, engines report every call by itself.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping

from proxy.contract.outcome import Outcome
from proxy.control.tap_events import event_of
from proxy.control.tap_filters import TapFilter, parse_filter
from proxy.errors import TooManyTapsError
from telemetry.report import Call
from telemetry.series import Counter, Gauge

MAX_TAPS = 8
MAX_UNREAD = 1_024  # events of one tap that its reader has not taken yet
_PIECE = 64  # events handed on together
_TELL_S = 1.0  # how often a tap says what it left out, and that it is there still
BEYOND_RATE, QUEUE_FULL = "max-rps", "queue-full"


class _Tap:
    """One reader's queue. Mutable state: encoded events, how many were left out since that was last told, and what the rate allows."""

    def __init__(self, wanted: TapFilter, clock: Callable[[], float]) -> None:
        self.wanted = wanted
        self.events: deque[bytes] = deque()
        self.skipped = {BEYOND_RATE: 0, QUEUE_FULL: 0}
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

    def take(self) -> bytes:
        """The next lines, oldest first; empty where there are none."""
        return b"".join(self.events.popleft() for _ in range(min(_PIECE, len(self.events))))

    def told_skipped(self) -> bytes:
        """The line that says how many were left out since the last one; empty where none were."""
        if not any(self.skipped.values()):
            return b""
        left_out, self.skipped = self.skipped, dict.fromkeys(self.skipped, 0)
        return _line({"event": "skipped", "calls": sum(left_out.values()), "reasons": left_out})


class Taps:
    """The open taps of one sidecar, `MAX_TAPS` at most.

    Mutable state: those taps, and `obfuscate`, whether paths are hidden as in the access log. about: of the sidecar, for the first line.
    """

    def __init__(
        self,
        looking: Gauge,
        dropped: Counter,
        about: Mapping[str, object],
        *,
        obfuscate: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.obfuscate = obfuscate
        self._looking = looking
        self._dropped = dropped
        self._about = about
        self._clock = clock
        self._open: set[_Tap] = set()

    @property
    def is_open(self) -> bool:
        """Whether anybody looks."""
        return bool(self._open)

    def offer(self, call: Call, outcome: Outcome) -> None:
        """Show a call that ended to whoever wants it."""
        line = b""
        for tap in self._open:
            if not tap.wanted.lets_through(call):
                continue
            if (why := tap.no_room()) is not None:
                tap.skipped[why] += 1
                self._dropped.add(why)
            else:
                line = line or _line(event_of(call, outcome, obfuscate=self.obfuscate))
                tap.events.append(line)
                tap.news.set()

    def open(self, query: Mapping[str, list[str]]) -> AsyncGenerator[bytes]:
        """Lines of JSON: what is tapped, then each call as it ends, and what was left out; it goes on until it is closed.

        Raises: ValueError, where a filter can't be read; TooManyTapsError.
        """
        wanted = parse_filter(query)
        if wanted.path and self.obfuscate:
            raise ValueError("path: paths are hidden here (apiLogging.obfuscateURLs)")
        if len(self._open) >= MAX_TAPS:
            raise TooManyTapsError(MAX_TAPS)
        return self._lines(wanted)

    async def _lines(self, wanted: TapFilter) -> AsyncGenerator[bytes]:
        tap = _Tap(wanted, self._clock)
        self._open.add(tap)
        self._looking.set(len(self._open))
        try:
            yield _line({"event": "open", **self._about, "max_rps": wanted.max_rps})
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


def _line(told: Mapping[str, object]) -> bytes:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
