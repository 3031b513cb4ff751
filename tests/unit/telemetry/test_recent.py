"""The last minute of each route."""

from bisect import bisect_left
from typing import Any

import pytest

from telemetry.recent import ROUTE_LABELS, WINDOW_S, Recent, longest_of
from telemetry.series import Histogram

LABELS = (
    "outbound",
    "web.default",
    "cart.default",
    "http",
    "GET",
    "",
    "2xx",
    "spiffe://public/ns/default/cart",
    "",
)


class Watched:
    """A ring over one histogram; the clock stands still until it is moved."""

    def __init__(self, *, limit: int = 10) -> None:
        self.now = 1_000.0
        self.routes = Histogram("routes", "", ROUTE_LABELS, (0.001, 0.01), limit=limit)
        self.recent = Recent(self.routes, clock=lambda: self.now, wall=lambda: 5_000.0 + self.now)

    def call(self, took_s: float = 0.005, times: int = 1, labels: tuple[str, ...] = LABELS) -> None:
        for _ in range(times):
            self.routes.slot(*labels).observe(took_s)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.recent.look()

    def route(self) -> dict[str, Any]:
        report: Any = self.recent.report()
        (found,) = report["routes"]
        return dict(found)


def test_calls_of_the_last_minute_are_told_beside_all() -> None:
    watched = Watched()
    watched.call(times=3)
    watched.after(1)
    watched.call(took_s=1.0)
    watched.after(WINDOW_S - 1)
    assert (watched.route()["calls"], watched.route()["recent"]) == ([0, 3, 1], [0, 3, 1])
    watched.after(1)
    assert (watched.route()["calls"], watched.route()["recent"]) == ([0, 3, 1], [0, 0, 1])
    watched.after(WINDOW_S)
    assert (watched.route()["calls"], watched.route()["recent"]) == ([0, 3, 1], [])


def test_route_says_who_it_is_and_when_it_was_last_used() -> None:
    watched = Watched()
    watched.call()
    watched.after(1)
    watched.after(30)
    found = watched.route()
    assert tuple(found[label] for label in ROUTE_LABELS) == LABELS
    assert found["last_seen"] == 6_001.0


def test_window_grows_to_a_minute_from_the_start() -> None:
    watched = Watched()
    assert watched.recent.report()["window_s"] == 1.0
    watched.after(20)
    assert watched.recent.report()["window_s"] == 20.0
    watched.after(2 * WINDOW_S)
    assert watched.recent.report()["window_s"] == WINDOW_S


def test_routes_beyond_the_limit_are_told_together() -> None:
    watched = Watched(limit=2)
    for number in range(5):
        watched.call(labels=(*LABELS[:5], f"/{number}", *LABELS[6:]))
    report: Any = watched.recent.report()
    assert [sum(route["calls"]) for route in report["routes"]] == [1, 1, 3]
    assert report["routes"][-1]["path"] == "other"


def test_look_that_finds_nothing_new_keeps_nothing() -> None:
    watched = Watched()
    watched.call()
    watched.after(1)
    for _ in range(30):
        watched.after(1)
    assert watched.route()["recent"] == [0, 1, 0]


def test_one_call_is_not_said_to_have_taken_longer_than_it_did() -> None:
    watched = Watched()
    watched.call(took_s=0.003)
    watched.after(1)
    assert (watched.route()["recent_longest_s"], watched.route()["longest_s"]) == (0.003, 0.003)
    watched.call(took_s=0.002)
    watched.after(WINDOW_S - 1)
    assert watched.route()["recent_longest_s"] == 0.003
    watched.after(1)
    assert (watched.route()["recent_longest_s"], watched.route()["longest_s"]) == (0.002, 0.003)
    watched.after(WINDOW_S)
    assert watched.route()["recent_longest_s"] == 0.0


@pytest.mark.parametrize(
    ("took_s", "longest_s"),
    [
        ((), 0.0),
        ((0.003,), 0.003),
        ((0.0005, 0.003), 0.0035),  # the other one may have taken no time
        ((0.003, 0.004), 0.006),  # the other one took 1 ms at least
        ((0.009,) * 9, 0.01),  # at most the bucket's bound
        ((5.0,), 5.0),  # beyond all bounds
    ],
)
def test_longest_of_some_calls_is_bounded_by_their_buckets_and_sum(
    took_s: tuple[float, ...], longest_s: float
) -> None:
    bounds = (0.001, 0.01)
    counts = [0, 0, 0]
    for each in took_s:
        counts[bisect_left(bounds, each)] += 1
    assert longest_of(counts, sum(took_s), bounds) == pytest.approx(longest_s)
    assert longest_of(counts, sum(took_s), bounds) >= max(took_s, default=0.0)
