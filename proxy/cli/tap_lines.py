"""Events of taps as people read them: one line for a request, for an answer that goes on, and for an end."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from telemetry.printable import printable

Told = Mapping[str, Any]
EVENTS: Final = {"request": "req", "response": "rsp", "end": "end"}
_HOLD_S: Final = 0.2  # an answer that ends within this time has no line of its own
_MAX_HELD: Final = 1_024
_LONG_US: Final = 5_000  # a wait that a line mentions, as spans do
_WAITS: Final = ("resolve", "queue", "authorize", "retries", "connect")


class Printer:
    """Prints events as they come, but holds the line of an answer back for a moment: its end says all of it. put: takes a line.

    Mutable state: those held back, by the ids of their calls, and until when.
    """

    def __init__(self, put: Callable[[str], None], *, is_wide: bool, is_ends: bool = False) -> None:
        self._put = put
        self._is_wide = is_wide
        self._is_ends = is_ends
        self._held: dict[str, tuple[float, Told]] = {}
        self._news = asyncio.Event()

    def show(self, told: Told) -> None:
        """One event of a call."""
        self._held.pop(told["id"], None)
        if told["event"] == "response" and not told["headers"] and len(self._held) < _MAX_HELD:
            self._held[told["id"]] = (asyncio.get_running_loop().time() + _HOLD_S, told)
            self._news.set()
        else:
            self._print(told)

    async def run(self) -> None:
        """Print what was held back once its time has come, until cancelled."""
        while True:
            if not self._held:
                self._news.clear()
                await self._news.wait()
                continue  # it may be over by now
            call, (due, told) = next(iter(self._held.items()))
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if self._held.get(call) == (due, told):
                del self._held[call]
                self._print(told)

    def flush(self) -> None:
        """Print what is held back."""
        while self._held:
            self._print(self._held.pop(next(iter(self._held)))[1])

    def _print(self, told: Told) -> None:
        for line in render(told, is_wide=self._is_wide, is_ends=self._is_ends):
            self._put(line)


def render(told: Told, *, is_wide: bool, is_ends: bool = False, now: datetime | None = None) -> Iterator[str]:
    """One event: a line, and with `is_wide` a line for each thing that it is made of. is_ends: all are ends."""
    time = datetime.fromisoformat(str(told["time"])).replace(tzinfo=UTC)
    at = time.astimezone()
    event = told["event"]
    way = {"outbound": "out", "inbound": "in "}[told["direction"]]
    who = f"{_name(told, 'src')} → {_name(told, 'dst')}"
    took_us = told.get("duration_us", told.get("ttfb_us"))
    if event == "request" and told["under_way"]:
        took_us = ((now or datetime.now(UTC)) - time).total_seconds() * 1e6
    verb = "" if told["protocol"] == "grpc" else f"{told['verb']} "
    parts = [
        f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}",
        *(() if is_ends else (f"{EVENTS[event]} {'id=' + told['id']:<11}",)),
        f"{way} {who:<24} ",
        f"{_code(told):<4}",
        f"{'' if took_us is None else length(int(took_us)):>8} ",
        f"{verb}{told['path'] or '(path hidden)'}",
        *(f" {note}" for note in _notes(told)),
    ]
    yield printable(" ".join(parts))
    if is_wide:
        yield from (f"    {label:<9} {printable(text)}" for label, text in _details(told))


def skipped(told: Told) -> str:
    """What a tap left out."""
    words = {
        "max-rps": "beyond --max-rps",
        "queue-full": "not read in time",
        "engine-busy": "not told by a busy engine",
    }
    parts = [f"{count} {words.get(why, why)}" for why, count in told["reasons"].items() if count]
    return f"… {told['calls']} more, not shown: {', '.join(parts)}"


def _code(told: Told) -> str:
    if told["event"] == "request":
        return ""
    if told["protocol"] == "grpc":
        return str(told.get("grpc_code") or "-")  # an answer's comes at its end
    return str(told["status"] or "-")


def _notes(told: Told) -> Iterator[str]:
    if told["under_way"]:
        yield "[under way]" if told["event"] == "request" else "[began before this tap]"
    if told["event"] == "end":
        yield from _notes_of_end(told)
    for name, value in (told.get("headers") or {}).items():
        yield f"{name}={value}"


def _notes_of_end(told: Told) -> Iterator[str]:
    if told["cause"]:
        by = "this proxy" if told["made_by"] == "this-proxy" else "the callee's proxy"
        yield f"[{told['cause']}, by {by}]"
    if told["attempts"] > 1:
        yield f"[{told['attempts']} attempts]"
    timings = told["timings_us"]
    if long := [f"{part} {length(timings[part])}" for part in _WAITS if timings.get(part, 0) >= _LONG_US]:
        yield f"[{', '.join(long)}]"
    if told["mtls"] is False:
        yield "[no mTLS]"


def _details(told: Told) -> Iterator[tuple[str, str]]:
    is_end = told["event"] == "end"
    if told["event"] != "response":
        if told["peer"] or (is_end and told["mtls"] is not None):
            role = "caller" if told["direction"] == "inbound" else "callee"
            state = {True: ", mutual TLS", False: ", no mutual TLS", None: ", not reached"}
            yield "identity", f"{role} {told['peer'] or 'not proven'}{state[told['mtls']] if is_end else ''}"
        if told["decision"]:
            is_denied = told.get("cause") == "denied" or "action=deny" in told["decision"]
            verdict = "denied: " if is_denied else "allowed: " if is_end else ""  # a request does not tell
            yield "access", f"{verdict}{told['decision']}"
        if told["policies"]:
            yield "policies", ", ".join(told["policies"])
    if is_end:
        yield from _details_of_end(told)
    if told["event"] != "response" and told["trace_id"]:
        yield "trace", f"{told['trace_id']}{'' if told['sampled'] else ' (not sampled)'}"


def _details_of_end(told: Told) -> Iterator[tuple[str, str]]:
    for number, tried in enumerate(told["tried"], told["attempts"] - len(told["tried"]) + 1):
        yield f"attempt {number}", _attempt(tried)
    yield "time", ", ".join(f"{part} {length(took)}" for part, took in told["timings_us"].items())
    yield "bytes", f"{told['bytes_in']} sent, {told['bytes_out']} received"


def _attempt(tried: Told) -> str:
    code = tried["grpc_code"] or tried["status"] or ""
    result = " ".join(str(part) for part in (tried["cause"], code, tried["detail"]) if part)
    return f"{tried['endpoint'] or 'no endpoint'}  {result}  {length(tried['took_us'])}"


def _name(told: Told, end: str) -> str:
    app, namespace = told[end], told[f"{end}_namespace"]
    if not app:
        return "?"
    return app if namespace in ("", "default") else f"{app}.{namespace}"


def length(took_us: int) -> str:
    """A length of time."""
    if took_us < 1_000:
        return f"{took_us}us"
    return f"{took_us / 1_000:.1f}ms" if took_us < 1_000_000 else f"{took_us / 1e6:.2f}s"
