"""How often calls to one target may be retried, all of them together; frozen values."""

from msgspec import Struct


class RetryShare(Struct, frozen=True, kw_only=True):
    """A share of the calls of the last `ttl_s`, and `min_per_s` a second besides. Source: Linkerd's retry budgets."""

    ratio: float = 0.2
    min_per_s: float = 10.0
    ttl_s: float = 10.0


class RetryThrottle(Struct, frozen=True, kw_only=True):
    """A failure takes a token, a success gives `token_ratio` back; at half of them or below nothing is retried.

    Source: gRPC proposal A6, Throttling.
    """

    max_tokens: float = 10.0
    token_ratio: float = 0.1


RetryBudget = RetryShare | RetryThrottle
