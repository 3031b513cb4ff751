"""What h2load says becomes numbers, and an answer that only looks right does not."""

import pytest

from tests.bench.cases import CASES
from tests.bench.errors import LoadError
from tests.bench.load import percentile, summarise

GRPC = CASES[0]
OUTPUT = """\
finished in 2.00s, 50.00 req/s, 2.52MB/s
requests: 100 total, 196 started, {done} done, {done} succeeded, {failed} failed, 0 errored, 0 timeout
status codes: 100 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.62KB (2684) total, 1.05KB (1080) headers (space savings 95.39%), 1.17KB ({data}) data
"""


def output(*, done: int = 100, failed: int = 0, data: int = 1200) -> str:
    return OUTPUT.format(done=done, failed=failed, data=data)


def test_summarise_reads_rate_and_percentiles() -> None:
    load = summarise(output(), list(range(1000, 101_000, 1000)), GRPC)
    assert (load.calls, load.calls_per_s) == (100, 50.0)
    assert (load.mean_ms, load.p50_ms, load.p99_ms) == (50.5, 50.0, 99.0)


@pytest.mark.parametrize("said", [output(failed=1), output(data=0), output(done=0), "connection refused"])
def test_summarise_refuses_failures_and_answers_without_bodies(said: str) -> None:
    with pytest.raises(LoadError):
        summarise(said, [1000] * 100, GRPC)


def test_summarise_refuses_a_log_that_misses_calls() -> None:
    with pytest.raises(LoadError):
        summarise(output(), [1000] * 50, GRPC)


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 1), (0.51, 2), (0.99, 2), (1.0, 2)])
def test_percentile_is_the_nearest_rank(share: float, wanted: int) -> None:
    assert percentile([1, 2], share) == wanted
