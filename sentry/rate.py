"""Token buckets, one for each identity, in bounded memory. Pure, except for the clock passed in."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sentry.errors import RateLimitError

DEFAULT_RATE: Final = 10.0
DEFAULT_BURST: Final = 50.0
_MAX_BUCKETS: Final = 10_000


class RateLimiter:
    """State (`_buckets`: key -> tokens left, at): the least recently used key is forgotten beyond the bound."""

    def __init__(
        self, clock: Callable[[], float], *, rate: float = DEFAULT_RATE, burst: float = DEFAULT_BURST
    ) -> None:
        """`clock` is monotonic; `rate` is per second."""
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Spend one token of `key`. Raises RateLimitError when none is left."""
        now = self._clock()
        tokens, since = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise RateLimitError((1 - tokens) / self._rate)
