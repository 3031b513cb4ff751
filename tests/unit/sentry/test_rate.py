"""Token buckets."""

import pytest

from sentry.errors import RateLimitError
from sentry.rate import RateLimiter


def test_bucket_gives_its_burst_then_its_rate() -> None:
    now = 0.0
    limiter = RateLimiter(lambda: now, rate=10, burst=3)
    for _ in range(3):
        limiter.take("a")
    with pytest.raises(RateLimitError) as refusal:
        limiter.take("a")
    assert refusal.value.retry_after_s == pytest.approx(0.1)
    limiter.take("b")
    now = 0.1
    limiter.take("a")
    with pytest.raises(RateLimitError):
        limiter.take("a")


def test_bucket_never_holds_more_than_its_burst() -> None:
    now = 0.0
    limiter = RateLimiter(lambda: now, rate=10, burst=2)
    limiter.take("a")
    now = 1000.0
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(RateLimitError):
        limiter.take("a")


def test_buckets_of_many_names_stay_bounded() -> None:
    limiter = RateLimiter(lambda: 0.0, rate=1, burst=1)
    limiter.take("first")
    for number in range(10_000):
        limiter.take(str(number))
    limiter.take("first")
