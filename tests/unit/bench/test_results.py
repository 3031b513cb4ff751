"""Samples become medians, and the verdicts name what failed."""

import json
from dataclasses import replace
from pathlib import Path

from tests.bench import results
from tests.bench.floors import PORTABLE
from tests.bench.load import Load
from tests.bench.results import Row, Sample
from tests.bench.verdicts import verdicts


def sample(calls_per_s: float, cpu_us: float | None = 10.0) -> Sample:
    load = Load(calls=100, calls_per_s=calls_per_s, mean_ms=1.0, p50_ms=1.0, p99_ms=2.0)
    return Sample(load=load, cpu_us_per_call=cpu_us, rss_mb=None if cpu_us is None else 50.0)


def row(target: str, calls_per_s: float, *, rss_mb: float = 50.0, startup_s: float = 0.3) -> Row:
    made = results.summarise("grpc-unary", target, [sample(calls_per_s)], startup_s)
    return Row(**{**{name: getattr(made, name) for name in Row.__slots__}, "rss_mb": rss_mb})


def failing(*rows: Row) -> list[str]:
    return [verdict.text for verdict in verdicts(rows) if not verdict.holds]


def test_summarise_takes_the_median_and_leaves_direct_without_costs() -> None:
    made = results.summarise("http1", "direct", [sample(n, None) for n in (1.0, 9.0, 2.0)], None)
    assert (made.calls_per_s, made.cpu_us_per_call, made.rss_mb, made.startup_s) == (2.0, None, None, None)


def test_verdicts_hold_at_the_floors() -> None:
    assert failing(row("direct", 4000), row(PORTABLE, 2000, rss_mb=60, startup_s=0.4)) == []


def test_verdicts_name_each_broken_floor() -> None:
    broken = failing(row("direct", 3900), row(PORTABLE, 1999, rss_mb=61, startup_s=0.401))
    assert len(broken) == 4


def test_floors_are_those_of_the_reference_at_this_machines_pace() -> None:
    bare = row("bare-h2", 1800, rss_mb=30)
    assert failing(row("direct", 4000), bare, row(PORTABLE, 1000, startup_s=0.8)) == []
    broken = failing(row("direct", 4000), bare, row(PORTABLE, 999, startup_s=0.81))
    assert broken == [
        "postern-portable: 999 unary calls/s, 1,998 at the reference's pace (at least 2,000)",
        "postern-portable: start-up 810 ms, 405 at the reference's pace (at most 400)",
    ]


def test_bars_of_the_native_engine_stand_beside_envoy() -> None:
    envoy, native = row("envoy", 100, rss_mb=70), row("postern-native", 190)
    cheap = Row(**{**{name: getattr(native, name) for name in Row.__slots__}, "cpu_us_per_call": 4.5})
    assert failing(row("direct", 4000), envoy, cheap) == []
    broken = failing(row("direct", 4000), envoy, row("postern-native", 189, rss_mb=61, startup_s=0.31))
    assert broken == [
        "postern-native, grpc-unary: 1.89 x envoy's calls/s (at least 1.9)",
        "postern-native, grpc-unary: 1.00 x envoy's CPU per call (at most 0.45)",
        "postern-native, grpc-unary: 61 MB resident per proxy (at most 60)",
        "postern-native: start-up 310 ms (at most 300)",
    ]


def test_verdicts_of_envoy_have_no_floor_but_headroom() -> None:
    assert failing(row("direct", 100), row("envoy", 50, rss_mb=500, startup_s=9)) == []


def test_write_gives_a_list_of_rows(tmp_path: Path) -> None:
    path = tmp_path / ".bench" / "latest.json"
    results.write([row("envoy", 10)], path)
    (written,) = json.loads(path.read_text())
    assert list(written) == [
        *(
            "case",
            "target",
            "calls_per_s",
            "cpu_us_per_call",
            "mean_ms",
            "p50_ms",
            "p99_ms",
            "rss_mb",
            "startup_s",
            "mib_per_s",
            "peak_mb",
            "grown_mb",
            "idle_kb",
            "stolen",
        ),
    ]


def test_row_tells_how_much_the_host_took_of_a_typical_window() -> None:
    made = results.summarise(
        "http1", "envoy", [replace(sample(1.0), stolen=share) for share in (0.5, 0.01, 0.02)], None
    )
    assert made.stolen == 0.02
