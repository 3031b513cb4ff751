"""What the portable engine is held to, at this machine's pace in Python. Pure."""

from collections.abc import Sequence
from typing import Final

from tests.bench.results import Row, Verdict

PORTABLE: Final = "postern-portable"
FLOOR_CALLS_PER_S: Final = 2000.0
REFERENCE_BARE_H2: Final = 3600.0  # calls/s of a bare h2 relay on the machine for which the floors were set
FLOOR_STARTUP_S: Final = 0.400
FLOOR_RSS_MB: Final = 60.0


def floors(rows: Sequence[Row]) -> list[Verdict]:
    """Whether they hold at this machine's pace."""
    found = []
    pace = pace_of(rows)
    for row in rows:
        if row.target != PORTABLE:
            continue
        if row.case == "grpc-unary":
            calls = row.calls_per_s / pace
            text = f"{row.calls_per_s:,.0f} unary calls/s{at_reference(calls, pace)} (at least {FLOOR_CALLS_PER_S:,.0f})"
            found.append(Verdict(f"{PORTABLE}: {text}", calls >= FLOOR_CALLS_PER_S))
            if row.startup_s is not None:
                startup_s = row.startup_s * pace
                shown = f"{row.startup_s * 1000:.0f} ms{at_reference(startup_s * 1000, pace)}"
                text = f"start-up {shown} (at most {FLOOR_STARTUP_S * 1000:.0f})"
                found.append(Verdict(f"{PORTABLE}: {text}", startup_s <= FLOOR_STARTUP_S))
        if row.rss_mb is not None:
            text = (
                f"{PORTABLE}, {row.case}: {row.rss_mb:.0f} MB resident per proxy (at most {FLOOR_RSS_MB:.0f})"
            )
            found.append(Verdict(text, row.rss_mb <= FLOOR_RSS_MB))
    return found


def pace_of(rows: Sequence[Row]) -> float:
    """This machine's, in Python, as a share of the reference's: what bare h2 makes of it; 1 where that was not measured."""
    bare = [row.calls_per_s for row in rows if (row.case, row.target) == ("grpc-unary", "bare-h2")]
    return bare[0] / REFERENCE_BARE_H2 if bare else 1.0


def at_reference(value: float, pace: float) -> str:
    """What a figure would be at the reference's pace, where that is another."""
    return "" if pace == 1.0 else f", {value:,.0f} at the reference's pace"
