"""Rows become verdicts: whether the measurement is sound, and whether floors and bars hold. Pure."""

from collections.abc import Sequence
from typing import Final

from tests.bench.bars import bars
from tests.bench.floors import floors
from tests.bench.results import Row, Verdict
from tests.bench.spans import Account

HEADROOM: Final = 2.0


def verdicts(rows: Sequence[Row], accounts: Sequence[Account] = ()) -> tuple[Verdict, ...]:
    """All of them, those first that say whether the others mean anything."""
    return (*_headroom(rows), *floors(rows), *bars(rows), *map(_spans, accounts))


def _spans(account: Account) -> Verdict:
    kept = account.sent / account.calls if account.calls else 0.0
    text = (
        f"{account.target}: of {account.calls:,} spans {account.sent:,} were sent ({kept:.0%}) and {account.lost:,} counted as lost; "
        f"{account.received:,} arrived"
    )
    return Verdict(text, account.is_balanced and not account.lost)


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
