"""Decides when a local sentry is no longer needed. Pure, except for the probes passed in."""

from collections.abc import Callable


class IdleWatch:
    """Looks at the signs of life of a runtime root.

    State: the moment of the last sign of life, and the marks (of signatures, of callers) seen then.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        clock: Callable[[], float],
        is_registered: Callable[[], bool],
        mark: Callable[[], object],
    ) -> None:
        """`is_registered` tells whether any sidecar runs; `mark` changes whenever somebody asked for sentry."""
        self._limit_s = limit_s
        self._clock = clock
        self._is_registered = is_registered
        self._mark = mark
        self._last_mark = mark()
        self._alive_at = clock()

    def is_over(self) -> bool:
        """Whether nothing was seen alive for the whole limit. Call it several times per limit."""
        mark = self._mark()
        if mark != self._last_mark or self._is_registered():
            self._last_mark = mark
            self._alive_at = self._clock()
        return self._clock() - self._alive_at >= self._limit_s
