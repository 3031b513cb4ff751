"""Samples become rows, rows become a table, ratios and verdicts. Pure, but for writing one file."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench.load import Load

PORTABLE: Final = "postern-portable"
FLOOR_CALLS_PER_S: Final = 2000.0
REFERENCE_BARE_H2: Final = 3600.0  # calls/s of a bare h2 relay on the machine for which the floors were set
FLOOR_STARTUP_S: Final = 0.400
FLOOR_RSS_MB: Final = 60.0
HEADROOM: Final = 2.0
NATIVE: Final = "postern-native"
BAR_RSS_MB: Final = 60.0
BAR_STARTUP_S: Final = 0.300
BAR_ADDED: Final = 0.45  # of the latency that Envoy adds to a direct call
# case, target, beside whom: calls/s at least, CPU per call at most
BARS: Final = (
    ("grpc-unary", NATIVE, "envoy", 1.9, 0.45),
    ("grpc-unary", f"{NATIVE}-traced", "envoy-all-on", 2.8, 0.35),
    ("http1", NATIVE, "envoy", 1.8, 0.5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One window: its load, and what the proxies paid (None for `direct`)."""

    load: Load
    cpu_us_per_call: float | None
    rss_mb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of `.bench/latest.json`: medians over the rounds. rss_mb: the larger of the two proxies; CPU: both together."""

    case: str
    target: str
    calls_per_s: float
    cpu_us_per_call: float | None
    mean_ms: float
    p50_ms: float
    p99_ms: float
    rss_mb: float | None
    startup_s: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition and whether it holds."""

    text: str
    holds: bool


def summarise(case: str, target: str, samples: Sequence[Sample], startup_s: float | None) -> Row:
    """The row of one case and target."""
    loads = [sample.load for sample in samples]
    return Row(
        case=case,
        target=target,
        calls_per_s=round(statistics.median(load.calls_per_s for load in loads), 1),
        cpu_us_per_call=_median(sample.cpu_us_per_call for sample in samples),
        mean_ms=round(statistics.median(load.mean_ms for load in loads), 3),
        p50_ms=round(statistics.median(load.p50_ms for load in loads), 3),
        p99_ms=round(statistics.median(load.p99_ms for load in loads), 3),
        rss_mb=_median(sample.rss_mb for sample in samples),
        startup_s=None if startup_s is None else round(startup_s, 3),
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
    columns = (
        "calls/s",
        "CPU µs/call",
        "mean ms",
        "p50 ms",
        "p99 ms",
        "RSS MB",
        "start s",
        "/direct",
        "/envoy",
    )
    for name in (*columns, "CPU/envoy"):
        table.add_column(name, justify="right")
    by_key = {(row.case, row.target): row for row in rows}
    for row in rows:
        envoy, direct = by_key.get((row.case, "envoy")), by_key.get((row.case, "direct"))
        table.add_row(
            row.case,
            row.target,
            f"{row.calls_per_s:,.0f}",
            _shown(row.cpu_us_per_call, 0),
            f"{row.mean_ms:.2f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            _shown(row.rss_mb, 0),
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


def verdicts(rows: Sequence[Row]) -> tuple[Verdict, ...]:
    """Whether the measurement itself is sound, and whether the portable engine's floors and the native one's bars hold."""
    return (*_headroom(rows), *_floors(rows), *_bars(rows))


def _bars(rows: Sequence[Row]) -> list[Verdict]:
    by_key = {(row.case, row.target): row for row in rows}
    found: list[Verdict] = []
    for case, target, other, calls, cpu in BARS:
        ours, theirs = by_key.get((case, target)), by_key.get((case, other))
        if ours is None or theirs is None or ours.cpu_us_per_call is None or not theirs.cpu_us_per_call:
            continue
        made, paid = ours.calls_per_s / theirs.calls_per_s, ours.cpu_us_per_call / theirs.cpu_us_per_call
        found += [
            Verdict(f"{target}, {case}: {made:.2f} x {other}'s calls/s (at least {calls:g})", made >= calls),
            Verdict(f"{target}, {case}: {paid:.2f} x {other}'s CPU per call (at most {cpu:g})", paid <= cpu),
        ]
    return [*found, *_one_at_a_time(by_key), *_native_costs(rows)]


def _one_at_a_time(by_key: Mapping[tuple[str, str], Row]) -> list[Verdict]:
    direct, envoy, ours = (by_key.get(("grpc-one", name)) for name in ("direct", "envoy", NATIVE))
    if direct is None or envoy is None or ours is None:
        return []
    added = (ours.mean_ms - direct.mean_ms) / (envoy.mean_ms - direct.mean_ms)
    p99 = f"{NATIVE}, grpc-one: p99 {ours.p99_ms:.2f} ms (at most envoy's {envoy.p99_ms:.2f})"
    return [
        Verdict(
            f"{NATIVE}, grpc-one: {added:.2f} x the latency that envoy adds (at most {BAR_ADDED:g})",
            added <= BAR_ADDED,
        ),
        Verdict(p99, ours.p99_ms <= envoy.p99_ms),
    ]


def _native_costs(rows: Sequence[Row]) -> list[Verdict]:
    found = []
    pace = _pace(rows)
    for row in rows:
        if row.target != NATIVE or row.rss_mb is None:
            continue
        text = f"{NATIVE}, {row.case}: {row.rss_mb:.0f} MB resident per proxy (at most {BAR_RSS_MB:.0f})"
        found.append(Verdict(text, row.rss_mb <= BAR_RSS_MB))
        if row.case == "grpc-unary" and row.startup_s is not None:
            startup_s = row.startup_s * pace
            shown = f"{row.startup_s * 1000:.0f} ms{_at_reference(startup_s * 1000, pace)}"
            found.append(
                Verdict(
                    f"{NATIVE}: start-up {shown} (at most {BAR_STARTUP_S * 1000:.0f})",
                    startup_s <= BAR_STARTUP_S,
                )
            )
    return found


def _headroom(rows: Sequence[Row]) -> list[Verdict]:
    """Direct must be twice as fast as any proxy, or the upstream or the generator was measured."""
    found = []
    for direct in (row for row in rows if row.target == "direct"):
        proxied = [row for row in rows if row.case == direct.case and row.target != "direct"]
        if proxied:
            fastest = max(proxied, key=lambda row: row.calls_per_s)
            ratio = direct.calls_per_s / fastest.calls_per_s
            text = f"{direct.case}: direct is {ratio:.1f} x {fastest.target} (at least {HEADROOM:g})"
            found.append(Verdict(text, ratio >= HEADROOM))
    return found


def _floors(rows: Sequence[Row]) -> list[Verdict]:
    found = []
    pace = _pace(rows)
    for row in rows:
        if row.target != PORTABLE:
            continue
        if row.case == "grpc-unary":
            calls = row.calls_per_s / pace
            text = f"{row.calls_per_s:,.0f} unary calls/s{_at_reference(calls, pace)} (at least {FLOOR_CALLS_PER_S:,.0f})"
            found.append(Verdict(f"{PORTABLE}: {text}", calls >= FLOOR_CALLS_PER_S))
            if row.startup_s is not None:
                startup_s = row.startup_s * pace
                at_reference = _at_reference(startup_s * 1000, pace)
                text = f"start-up {row.startup_s * 1000:.0f} ms{at_reference} (at most {FLOOR_STARTUP_S * 1000:.0f})"
                found.append(Verdict(f"{PORTABLE}: {text}", startup_s <= FLOOR_STARTUP_S))
        if row.rss_mb is not None:
            text = (
                f"{PORTABLE}, {row.case}: {row.rss_mb:.0f} MB resident per proxy (at most {FLOOR_RSS_MB:.0f})"
            )
            found.append(Verdict(text, row.rss_mb <= FLOOR_RSS_MB))
    return found


def _pace(rows: Sequence[Row]) -> float:
    """This machine's, in Python, as a share of the reference's: what bare h2 makes of it; 1 where that was not measured."""
    bare = [row.calls_per_s for row in rows if (row.case, row.target) == ("grpc-unary", "bare-h2")]
    return bare[0] / REFERENCE_BARE_H2 if bare else 1.0


def _at_reference(value: float, pace: float) -> str:
    return "" if pace == 1.0 else f", {value:,.0f} at the reference's pace"
