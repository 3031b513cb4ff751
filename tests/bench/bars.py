"""What the native engine is held to, beside Envoy and beside itself in the same run. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from tests.bench.cases import NATIVE
from tests.bench.floors import at_reference, pace_of
from tests.bench.results import Row, Verdict

BAR_RSS_MB: Final = 60.0
BAR_STARTUP_S: Final = 0.300
BAR_ADDED: Final = 0.45  # of the latency that Envoy adds to a direct call
BAR_SPREAD: Final = 0.8
BAR_IDLE_KB: Final = 16.0
BAR_GROWN_MB: Final = 2.0
BAR_SLOW: Final = 1.2  # of the p99 of three instances that are alike, where one of three is slow
BAR_FLAT_MB: Final = 8.0  # windows' worth of bytes that happen to lie about at the worst moment
# case, target, beside whom: calls/s at least, CPU per call at most
BARS: Final = (
    ("grpc-unary", NATIVE, "envoy", 1.9, 0.45),
    ("grpc-unary", f"{NATIVE}-traced", "envoy-all-on", 2.8, 0.3),
    ("http1", NATIVE, "envoy", 1.8, 0.5),
    ("peers", NATIVE, "envoy", 1.3, 0.6),
)
# of `grpc-unary`: target, beside which: calls/s at least
OPTIONS: Final = (
    (f"{NATIVE}-sampled", f"{NATIVE}-untraced", 0.97),
    (f"{NATIVE}-logged", NATIVE, 0.92),
    (f"{NATIVE}-scraped", NATIVE, 0.97),
    (f"{NATIVE}-guarded", NATIVE, 0.95),
)
# case, and beside which
SPREAD: Final = (
    ("paths", "fixed-path"),
    ("idle-http1", "no-idle"),
    ("idle-grpc", "no-idle"),
)
# Where memory is that of calls alone, not of thousands of connections or of windows full of bodies.
RESIDENT: Final = frozenset({"grpc-unary", "grpc-one", "http1", "http1-one", "fixed-path", "paths"})
_ByKey = Mapping[tuple[str, str], Row]


def bars(rows: Sequence[Row]) -> list[Verdict]:
    """Those that these rows can tell of."""
    by_key = {(row.case, row.target): row for row in rows}
    return [
        *_beside_envoy(by_key),
        *_one_at_a_time(by_key, "grpc-one"),
        *_one_at_a_time(by_key, "grpc-one-restless"),
        *_options(by_key),
        *_spread(by_key),
        *_bodies(by_key),
        *_native_costs(rows),
        *_million(by_key),
        *_instances(by_key),
    ]


def _beside_envoy(by_key: _ByKey) -> list[Verdict]:
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
    return found


def _one_at_a_time(by_key: _ByKey, case: str) -> list[Verdict]:
    """Against a direct call and Envoy, both left in peace."""
    direct, envoy = by_key.get(("grpc-one", "direct")), by_key.get(("grpc-one", "envoy"))
    ours = by_key.get((case, NATIVE))
    if direct is None or envoy is None or ours is None:
        return []
    added = (ours.mean_ms - direct.mean_ms) / (envoy.mean_ms - direct.mean_ms)
    p99 = f"{NATIVE}, {case}: p99 {ours.p99_ms:.2f} ms (at most envoy's {envoy.p99_ms:.2f})"
    return [
        Verdict(
            f"{NATIVE}, {case}: {added:.2f} x the latency that envoy adds (at most {BAR_ADDED:g})",
            added <= BAR_ADDED,
        ),
        Verdict(p99, ours.p99_ms <= envoy.p99_ms),
    ]


def _options(by_key: _ByKey) -> list[Verdict]:
    """What tracing, an access log, metrics, and guards against failures and strangers cost."""
    found = []
    for target, other, least in OPTIONS:
        ours, beside = by_key.get(("grpc-unary", target)), by_key.get(("grpc-unary", other))
        if ours is not None and beside is not None:
            share = ours.calls_per_s / beside.calls_per_s
            text = f"{target}: {share:.3f} x the calls/s of {other} (at least {least:g})"
            found.append(Verdict(text, share >= least))
    return found


def _spread(by_key: _ByKey) -> list[Verdict]:
    found = []
    for case, base in SPREAD:
        ours, beside = by_key.get((case, NATIVE)), by_key.get((base, NATIVE))
        if ours is None:
            continue
        if beside is not None:
            share = ours.calls_per_s / beside.calls_per_s
            text = f"{NATIVE}, {case}: {share:.2f} x the calls/s of {base} (at least {BAR_SPREAD:g})"
            found.append(Verdict(text, share >= BAR_SPREAD))
        if ours.idle_kb is not None:
            text = f"{NATIVE}, {case}: {ours.idle_kb:.1f} KB per idle connection (at most {BAR_IDLE_KB:.0f})"
            found.append(Verdict(text, ours.idle_kb <= BAR_IDLE_KB))
    return found


def _bodies(by_key: _ByKey) -> list[Verdict]:
    found = []
    for (case, target), ours in by_key.items():
        if target != NATIVE or ours.mib_per_s is None:
            continue
        envoy, small = by_key.get((case, "envoy")), by_key.get((case.replace("64m", "1m"), NATIVE))
        if envoy is not None and envoy.mib_per_s:
            share = ours.mib_per_s / envoy.mib_per_s
            found.append(
                Verdict(f"{NATIVE}, {case}: {share:.2f} x envoy's bytes/s (at least 1)", share >= 1.0)
            )
        if small is not None and small is not ours and ours.peak_mb is not None and small.peak_mb is not None:
            more_mb = ours.peak_mb - small.peak_mb
            text = f"{NATIVE}, {case}: at most {ours.peak_mb:.0f} MB resident, {more_mb:+.0f} to {small.case} (at most {BAR_FLAT_MB:+.0f})"
            found.append(Verdict(text, more_mb <= BAR_FLAT_MB))
    return found


def _native_costs(rows: Sequence[Row]) -> list[Verdict]:
    found = []
    pace = pace_of(rows)
    for row in rows:
        if row.target != NATIVE or row.rss_mb is None or row.case not in RESIDENT:
            continue
        text = f"{NATIVE}, {row.case}: {row.rss_mb:.0f} MB resident per proxy (at most {BAR_RSS_MB:.0f})"
        found.append(Verdict(text, row.rss_mb <= BAR_RSS_MB))
        if row.case == "grpc-unary" and row.startup_s is not None:
            startup_s = row.startup_s * pace
            shown = f"{row.startup_s * 1000:.0f} ms{at_reference(startup_s * 1000, pace)}"
            found.append(
                Verdict(
                    f"{NATIVE}: start-up {shown} (at most {BAR_STARTUP_S * 1000:.0f})",
                    startup_s <= BAR_STARTUP_S,
                )
            )
    return found


def _million(by_key: _ByKey) -> list[Verdict]:
    """Memory over the windows of `million`: two million calls by the caller's sidecar, the middle being after the first."""
    envoy = by_key.get(("fixed-path", "envoy"))
    found = []
    for ours in (by_key.get((case, NATIVE)) for case in ("fixed-path", "paths")):
        if ours is None or ours.rss_mb is None or ours.grown_mb is None:
            continue
        text = f"{NATIVE}, {ours.case}: {ours.grown_mb:+.1f} MB from the middle round to the last (at most {BAR_GROWN_MB:+g})"
        found.append(Verdict(text, ours.grown_mb <= BAR_GROWN_MB))
        if envoy is not None and envoy.rss_mb is not None:
            text = (
                f"{NATIVE}, {ours.case}: {ours.rss_mb:.0f} MB resident (less than envoy's {envoy.rss_mb:.0f})"
            )
            found.append(Verdict(text, ours.rss_mb < envoy.rss_mb))
    return found


def _instances(by_key: _ByKey) -> list[Verdict]:
    """What one slow instance of three does to the p99 of all calls, and what it does to those through Envoy."""
    slower = {
        target: slow.p99_ms / alike.p99_ms
        for (case, target), slow in by_key.items()
        if case == "one-slow" and (alike := by_key.get(("three-alike", target))) is not None
    }
    ours = slower.pop(NATIVE, None)
    if ours is None:
        return []
    others = "".join(f"; {target}: {times:.1f} x" for target, times in sorted(slower.items()))
    text = f"{NATIVE}, one-slow: {ours:.2f} x the p99 of three-alike (at most {BAR_SLOW:g}{others})"
    return [Verdict(text, ours <= BAR_SLOW)]
