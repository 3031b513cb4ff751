"""What a push says of a series that grows, stands still or begins anew."""

from telemetry.otlp.temporality import Cumulative, Delta, since

KEY = ("took_seconds", ("a",))


def test_cumulative_tells_all_since_the_start() -> None:
    kept = since("cumulative", 5)
    assert isinstance(kept, Cumulative)
    assert (kept.number(KEY, 3.0), kept.spread(KEY, [1, 2], 4.0)) == (3.0, ([1, 2], 4.0))
    kept.taken(9)
    assert (kept.number(KEY, 0.0), kept.started_ns) == (0.0, 5)


def test_delta_of_a_histogram_is_that_of_each_bucket() -> None:
    kept = since("delta", 5)
    assert isinstance(kept, Delta)
    assert kept.spread(KEY, [1, 2, 0], 4.0) == ([1, 2, 0], 4.0)
    kept.taken(9)
    assert kept.started_ns == 9
    assert kept.spread(KEY, [1, 2, 0], 4.0) is None
    assert kept.spread(KEY, [1, 3, 1], 9.0) == ([0, 1, 1], 5.0)


def test_delta_of_a_series_that_began_anew_is_all_of_it() -> None:
    kept = Delta(5)
    for counts in ([4, 4], [1]):
        kept.spread(KEY, counts, 8.0)
        kept.number(KEY, 8.0)
        kept.taken(9)
    assert kept.number(KEY, 2.0) == 2.0
    assert kept.spread(KEY, [0], 0.0) is None
    assert kept.spread(KEY, [3, 1], 2.0) == ([3, 1], 2.0)
