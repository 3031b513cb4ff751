"""From which level on a running sidecar writes log lines, changed for good or for a while."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from telemetry.durations import parse_duration_s
from telemetry.errors import LogConfigError
from telemetry.logs import get_logger, number_of, set_level

MAX_FOR_S = 86_400.0
RESET = "reset"
Json = dict[str, Any]
Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class LogLevel:
    """Mutable state: the level in force, and when it ends, in epoch seconds. configured: what it goes back to.

    later: calls something after so many seconds; the running loop's own where none is given.
    """

    def __init__(self, configured: str, later: Later | None = None) -> None:
        self._later = later
        self._configured = configured
        self._level = configured
        self._until: float | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._log = get_logger("postern")

    def change(self, level: str, for_text: str = "") -> None:
        """Write from this level on; `reset`: from the configured one. for_text: a duration, after which it goes back; empty: never.

        Raises: ValueError, in words for whoever asked.
        """
        level = level.lower()
        try:
            wanted = self._configured if level == RESET else level
            number_of(wanted)
            for_s = parse_duration_s(for_text) if for_text else 0.0
        except LogConfigError as error:
            raise ValueError(f"{error}; or {RESET}") from error
        except ValueError as error:
            raise ValueError(f"for {for_text!r}: expected {error}") from error
        if for_text and not 0 < for_s <= MAX_FOR_S:
            raise ValueError(f"for {for_text!r}: expected a duration above 0, a day at most")
        if self._ending is not None:
            self._ending.cancel()
            self._ending = self._until = None
        self._set(wanted, for_text)
        if for_text:
            self._until = time.time() + for_s
            later = self._later or asyncio.get_running_loop().call_later
            self._ending = later(for_s, self._end)

    def _end(self) -> None:
        self._ending = self._until = None
        self._set(self._configured, "")

    def _set(self, level: str, for_text: str) -> None:
        """Say so at the more talkative of the two levels."""
        before, self._level = self._level, level
        facts = {"before": before, "now": level, **({"for": for_text} if for_text else {})}
        if number_of(level) <= number_of(before):
            set_level(level)
            self._log.info("log level changed", **facts)
        else:
            self._log.info("log level changed", **facts)
            set_level(level)

    def told(self) -> Json:
        """The level in force, the configured one, and until when: epoch seconds, or null."""
        return {"level": self._level, "configured": self._configured, "until": self._until}

    def among(self, settings: Sequence[Json]) -> list[Json]:
        """Settings as they are told, with the level that is in force."""
        if self._level == self._configured:
            return list(settings)
        changed = {"value": self._level, "source": "command", "by": "postern log-level"}
        return [{**row, **changed} if row["name"] == "log-level" else row for row in settings]
