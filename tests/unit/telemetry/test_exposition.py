"""What the library makes of our families."""

from telemetry.exposition import render
from telemetry.series import Counter, Histogram

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def counters() -> list[Counter]:
    with_suffix, without = Counter("a_total", "A."), Counter("b_count", "B.")
    with_suffix.add()
    without.add()
    return [with_suffix, without, Counter("unused_total", "Never used.", ("x",))]


def test_render_text_types_counters_whatever_their_name() -> None:
    body = render(counters(), "")[0].decode()
    assert "# TYPE a_total counter\na_total 1.0\n" in body
    assert "# TYPE b_count counter\nb_count 1.0\n" in body
    assert "unused" not in body


def test_render_openmetrics_ends_as_it_must() -> None:
    body, content_type = render(counters(), OPENMETRICS)
    assert content_type.startswith(OPENMETRICS.partition(";")[0])
    assert "# TYPE a counter\n" in body.decode()
    assert "# TYPE b_count unknown\n" in body.decode()
    assert body.endswith(b"# EOF\n")


def test_render_histogram_buckets_are_cumulative_up_to_infinity() -> None:
    histogram = Histogram("h", "H.", (), (1, 2.5))
    for value in (1, 2, 3):
        histogram.slot().observe(value)
    lines = [line for line in render([histogram], "")[0].decode().splitlines() if line.startswith("h_")]
    assert lines == [
        'h_bucket{le="1.0"} 1.0',
        'h_bucket{le="2.5"} 2.0',
        'h_bucket{le="+Inf"} 3.0',
        "h_count 3.0",
        "h_sum 6.0",
    ]
