"""Spans kept for how they ended: bounded in number, in bytes and in time."""

from telemetry.kept import KeptSpans, bytes_of
from tests.unit.telemetry.building import SAMPLED, a_span


def kept(most: int = 100, most_bytes: int = 1 << 20, per_s: float = 1e6) -> KeptSpans:
    """With room for all unless told otherwise, at a clock that stands."""
    return KeptSpans(most, most_bytes, per_s, lambda: 0.0)


def test_latest_are_kept_up_to_a_number() -> None:
    spans = kept(most=2)
    for number in range(4):
        assert spans.take(a_span(start_ns=number))
    assert [span.start_ns for span in spans] == [2, 3]


def test_latest_are_kept_up_to_so_many_bytes_and_one_always() -> None:
    large = a_span(error="x" * 1_000)
    spans = kept(most_bytes=3 * bytes_of(large))
    for number in range(5):
        spans.take(a_span(error="x" * 1_000, start_ns=number))
    assert [span.start_ns for span in spans] == [2, 3, 4]
    spans.take(a_span(error="x" * 100_000))
    assert len(list(spans)) == 1


def test_those_beyond_the_rate_are_counted() -> None:
    now = [0.0]
    spans = KeptSpans(100, 1 << 20, 3.0, lambda: now[0])
    assert [spans.take(a_span()) for _ in range(5)] == [True] * 3 + [False] * 2
    now[0] = 0.34
    assert spans.take(a_span(context=SAMPLED))
    assert spans.refused == 2
