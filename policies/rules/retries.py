"""What a Traffic says of retries, beyond the policies of a Resiliency; frozen values."""

from typing import Final, Literal

from msgspec import Struct

from policies.rules.budgets import RetryBudget

Jitter = Literal["full", "equal", "none"]


class BackoffRule(Struct, frozen=True, kw_only=True):
    """How the pauses of a retry policy are drawn. None: as Dapr has it.

    jitter: `full` draws from none to all of a pause, `equal` from half to all. first_s and multiplier: of exponential policies, how long
    the first pause is at most, and by what the next is longer.
    """

    jitter: Jitter | None = None
    first_s: float | None = None
    multiplier: float | None = None


LEAST_HEDGE_DELAY_S: Final = 0.005  # with less, most calls would be made twice


class HedgeRule(Struct, frozen=True, kw_only=True):
    """Another attempt each `delay_s` while none is answered, up to `attempts` in all, in place of retries.

    delay_s None: as long as 95 of 100 calls to the target took lately, `LEAST_HEDGE_DELAY_S` at least.
    Of idempotent HTTP calls, and of gRPC calls of `methods` (`/package.Service/Method`). grpc_codes: those after which others go on.
    """

    attempts: int
    delay_s: float | None
    methods: frozenset[str] = frozenset()
    grpc_codes: frozenset[int] = frozenset({8, 14})


class TargetRetries(Struct, frozen=True, kw_only=True):
    """Of calls to one target. budget: None: the profile's own.

    on: which HTTP calls a policy repeats after they may have reached the app. overall_s: for all attempts of a call and the pauses between
    them.
    """

    budget: RetryBudget | Literal["off"] | None = None
    on: Literal["any", "idempotent"] = "any"
    backoff: BackoffRule = BackoffRule()
    overall_s: float | None = None
    hedging: HedgeRule | None = None
