"""Samples become rows, rows become tables. Pure, but for writing one file."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench.cases import MIB
from tests.bench.load import Load

COLUMNS: Final = (
    *("calls/s", "MiB/s", "CPU µs", "mean ms", "p50 ms", "p99 ms", "RSS MB", "peak MB", "start s"),
    *("/direct", "/envoy", "CPU/envoy"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One window: its load, and what the proxies paid (None for `direct`).

    peak_mb: the most that was resident; idle_kb: per connection; stolen: share of all cores' time that the host took.
    """

    load: Load
    cpu_us_per_call: float | None
    rss_mb: float | None
    peak_mb: float | None = None
    idle_kb: float | None = None
    stolen: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `.bench/latest.json`: medians over the rounds. rss_mb: the larger of the two proxies; CPU: both together.

    peak_mb: the most of any round; grown_mb: from the middle round to the last; stolen: the median, as of a sample.
    """

    case: str
    target: str
    calls_per_s: float
    cpu_us_per_call: float | None
    mean_ms: float
    p50_ms: float
    p99_ms: float
    rss_mb: float | None
    startup_s: float | None
    mib_per_s: float | None = None
    peak_mb: float | None = None
    grown_mb: float | None = None
    idle_kb: float | None = None
    stolen: float = 0.0


def summarise(
    case: str, target: str, samples: Sequence[Sample], startup_s: float | None, *, size: int = 0
) -> Row:
    """The row of one case and target; `size`: of the bodies, in bytes."""
    loads = [sample.load for sample in samples]
    calls_per_s = statistics.median(load.calls_per_s for load in loads)
    resident = [sample.rss_mb for sample in samples if sample.rss_mb is not None]
    return Row(
        case=case,
        target=target,
        calls_per_s=round(calls_per_s, 1),
        cpu_us_per_call=_median(sample.cpu_us_per_call for sample in samples),
        mean_ms=round(statistics.median(load.mean_ms for load in loads), 3),
        p50_ms=round(statistics.median(load.p50_ms for load in loads), 3),
        p99_ms=round(statistics.median(load.p99_ms for load in loads), 3),
        rss_mb=_median(sample.rss_mb for sample in samples),
        startup_s=None if startup_s is None else round(startup_s, 3),
        mib_per_s=round(calls_per_s * size / MIB, 1) if size else None,
        peak_mb=max((sample.peak_mb for sample in samples if sample.peak_mb is not None), default=None),
        grown_mb=round(resident[-1] - resident[(len(resident) - 1) // 2], 1) if resident else None,
        idle_kb=_median(sample.idle_kb for sample in samples),
        stolen=round(statistics.median(sample.stolen for sample in samples), 3),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 1) if known else None


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Every row with its ratios to direct and to Envoy (calls per second; CPU to Envoy's)."""
    table = Table(title="two hops, both proxies together", title_justify="left")
    for name in ("case", "target"):
        table.add_column(name)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    by_key = {(row.case, row.target): row for row in rows}
    for row in rows:
        envoy, direct = by_key.get((row.case, "envoy")), by_key.get((row.case, "direct"))
        table.add_row(
            row.case,
            row.target,
            f"{row.calls_per_s:,.0f}" if row.calls_per_s >= 100 else f"{row.calls_per_s:,.1f}",
            _shown(row.mib_per_s, 0),
            _shown(row.cpu_us_per_call, 0),
            f"{row.mean_ms:.2f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            _shown(row.rss_mb, 0),
            _shown(row.peak_mb, 0),
            _shown(row.startup_s, 3),
            _ratio(row.calls_per_s, direct.calls_per_s if direct else None),
            _ratio(row.calls_per_s, envoy.calls_per_s if envoy else None),
            _ratio(row.cpu_us_per_call, envoy.cpu_us_per_call if envoy else None),
        )
    console.print(table)


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _ratio(value: float | None, base: float | None) -> str:
    return "-" if value is None or not base else f"{value / base:.2f}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition and whether it holds."""

    text: str
    holds: bool
