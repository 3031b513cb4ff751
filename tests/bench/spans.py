"""What became of the spans where every call is traced: each arrived, or is in a metric as lost."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from tests.bench.scraping import Metrics, scrape
from tests.bench.sink import Sink
from tests.bench.targets import Target

_SETTLE_S: Final = 30.0
_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Of one target, both sides together: `calls` by the metrics, spans `sent` and `lost` by them, and those that the sink `received`."""

    target: str
    calls: int
    sent: int
    lost: int
    received: int

    @property
    def is_balanced(self) -> bool:
        """Whether each call's span was sent or counted as lost, and what was sent came."""
        return self.calls == self.sent + self.lost and self.sent == self.received


async def account(target: Target, sink: Sink) -> Account:
    """Wait until nothing is under way any more, then count."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        told = [await scrape(sidecar) for sidecar in target.sidecars]
        untold = _sum(told, "postern_reports_lost_total", 'kind="call"')  # neither counted nor traced
        found = Account(
            target=target.name,
            calls=_sum(told, "postern_edge_requests_total") + untold,
            sent=_sum(told, "postern_spans_exported_total"),
            lost=_sum(told, "postern_spans_dropped_total")
            + _sum(told, "postern_reports_lost_total", 'kind="span"')
            + untold,
            received=sink.spans(),
        )
        if found.is_balanced or time.monotonic() > deadline:
            return found
        await asyncio.sleep(_PAUSE_S)


def _sum(told: list[Metrics], name: str, label: str = "") -> int:
    return round(sum(metrics.total(name, label) for metrics in told))
