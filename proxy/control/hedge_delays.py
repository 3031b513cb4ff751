"""`delay: p95` of hedging: how long calls of each target wait before they are made once more, by how long its calls took lately."""

from collections.abc import Callable, Mapping
from typing import Final

from policies.rules.retries import LEAST_HEDGE_DELAY_S
from policies.rules.traffic import TrafficRules
from telemetry.edges import percentile
from telemetry.recent import Recent

WINDOW_S: Final = 10.0  # whose calls are looked at; a delay stays as long, as a change drops kept decisions
LEAST_CALLS: Final = 20  # of which a 95th percentile is worth anything; with fewer the last one holds
_SHARE: Final = 0.95
_TOLERANCE: Final = 0.1  # of a delay, by which another must differ to take its place


class HedgeDelays:
    """Mutable state: the delays in force by callee, and since when. changed: is told of others."""

    def __init__(self, recent: Recent, changed: Callable[[Mapping[str, float]], None]) -> None:
        self._recent = recent
        self._changed = changed
        self._delays: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def look(self, traffic: TrafficRules, now: float) -> None:
        """Measure anew what is due; call it each second. now: of a monotonic clock."""
        if not traffic.measures_hedging:
            return
        before = dict(self._delays)
        for dst, counts in self._recent.sent(WINDOW_S).items():
            app_id, _, namespace = dst.partition(".")
            hedging = traffic.for_app(app_id, namespace).retries.hedging
            if hedging is None or hedging.delay_s is not None or sum(counts) < LEAST_CALLS:
                continue
            if dst in self._since and now - self._since[dst] < WINDOW_S:
                continue
            found_s = percentile(counts, self._recent.bounds_s, _SHARE)
            assert found_s is not None
            delay_s = max(LEAST_HEDGE_DELAY_S, found_s)
            if abs(delay_s - self._delays.get(dst, 0.0)) > _TOLERANCE * delay_s:
                self._delays[dst], self._since[dst] = delay_s, now
        if self._delays != before:
            self._changed(dict(self._delays))
