"""Which endpoints of a cluster answer so badly that they are left out for a while. Pure: clock and chance are passed in.

About answers alone: an endpoint that can't be reached is `balance.Load.eject`'s. The native engine's is kept in step by
`tests/vectors/outliers.json`.
"""

from collections.abc import Callable, Sequence
from math import sqrt

from proxy.contract.balancing import EjectionReason, EndpointTurn, Outliers
from proxy.contract.outcome import Attempt
from proxy.contract.plan import Cause
from proxy.engine.portable.balance import Load, Standing

JITTER = 0.1  # of an ejection, so that endpoints that failed together do not come back together
PATIENCE_S = 0.1  # a deadline that ends an attempt sooner says more of the caller than of the endpoint
_FAILED = frozenset({Cause.RESET_EARLY, Cause.RESET_LATE, Cause.TIMEOUT, Cause.INVALID_ANSWER})
_FAILED_CODES = frozenset({2, 4, 13, 14})  # UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE


def has_failed(attempt: Attempt, *, is_tunnel: bool) -> bool | None:
    """Whether an attempt that has ended speaks against its endpoint; None: it says nothing of it.

    What the peer's proxy answered in its app's place speaks as that cause does: a call that it kept from the app says nothing.
    """
    cause = attempt.cause if attempt.cause is not None and attempt.cause is not Cause.STATUS else attempt.said
    if cause is not None:
        if cause is Cause.RESET_LATE and is_tunnel:
            return None
        if cause is Cause.TIMEOUT and _says_more_of_the_caller(attempt):
            return None
        return True if cause in _FAILED and attempt.sent_ns else None
    if attempt.grpc_code is not None:
        return attempt.grpc_code in _FAILED_CODES
    return attempt.status >= 500


def _says_more_of_the_caller(attempt: Attempt) -> bool:
    """Of a timeout: it came soon, or the answer had begun and was as long as its caller wanted it."""
    return attempt.ended_ns - attempt.sent_ns < PATIENCE_S * 1e9 or bool(attempt.cause and attempt.status)


class OutlierWatch:
    """Of one cluster. Mutable state: the rules in force and when success rates are next compared; the rest is its endpoints' `standing`."""

    def __init__(self) -> None:
        self._key = ""
        self._rules: Outliers | None = None
        self._compare_at = 0.0

    def update(self, key: str, rules: Outliers | None, loads: Sequence[Load]) -> None:
        """Other rules or endpoints. Where there are no rules, or a single endpoint, nothing is held against any."""
        self._key, self._rules = key, rules if len(loads) > 1 else None
        if self._rules is None:
            for load in loads:
                load.standing = Standing()

    def heard(
        self,
        loads: Sequence[Load],
        load: Load,
        has_failed: bool | None,
        now: float,
        chance: Callable[[], float],
    ) -> list[EndpointTurn]:
        """An attempt at an endpoint has ended. Returns what changed."""
        rules, standing = self._rules, load.standing
        if rules is None:
            return []
        if standing.out_until:
            return self._probed(load, has_failed, rules, now, chance)
        if has_failed is None:
            return []
        turns: list[EndpointTurn] = []
        standing.calls += 1
        standing.failed += has_failed
        standing.in_a_row = standing.in_a_row + 1 if has_failed else 0
        if rules.consecutive and standing.in_a_row >= rules.consecutive:
            turns += self._eject(loads, load, "failures", now, chance)
        if now >= self._compare_at:
            is_first, self._compare_at = not self._compare_at, now + rules.interval_s
            if not is_first:
                turns += self._compare(loads, rules, now, chance)
        return turns

    def begin(self, load: Load, now: float) -> None:
        """A call goes there: where its time is over, it is the one that probes."""
        standing = load.standing
        if self._rules is not None and 0.0 < standing.out_until <= now:
            standing.probed_until = now + self._rules.interval_s

    def _probed(
        self, load: Load, has_failed: bool | None, rules: Outliers, now: float, chance: Callable[[], float]
    ) -> list[EndpointTurn]:
        """Of an endpoint that is out: what began before says nothing, and what was sent since its time is over decides."""
        standing = load.standing
        if now < standing.out_until:
            return []
        standing.probed_until = 0.0
        if has_failed is None:
            return []
        if has_failed:
            return [self._put_out(load, "probe", rules, now, chance)]
        standing.out_until, standing.back_at, standing.slow_s = 0.0, now, rules.slow_start_s
        return [EndpointTurn(self._key, load.address, "", 0.0, standing.times)]

    def _eject(
        self,
        loads: Sequence[Load],
        load: Load,
        reason: EjectionReason,
        now: float,
        chance: Callable[[], float],
    ) -> list[EndpointTurn]:
        """Unless too many are out, or none would be left that takes calls."""
        rules = self._rules
        assert rules is not None
        load.standing.in_a_row = 0
        out = sum(1 for one in loads if one.standing.out_until)
        is_alone = all(one is load or one.standing.out_until or one.tier(now) > 1 for one in loads)
        if is_alone or out >= max(1, len(loads) * rules.max_percent // 100):
            return []
        load.standing.forgive(now, rules.interval_s)
        return [self._put_out(load, reason, rules, now, chance)]

    def _put_out(
        self, load: Load, reason: EjectionReason, rules: Outliers, now: float, chance: Callable[[], float]
    ) -> EndpointTurn:
        standing = load.standing
        standing.times += 1
        for_s = min(rules.max_ejection_s, rules.ejection_s * standing.times) * (1.0 + JITTER * chance())
        standing.out_until = now + for_s
        standing.reason = reason
        return EndpointTurn(self._key, load.address, reason, for_s, standing.times)

    def _compare(
        self, loads: Sequence[Load], rules: Outliers, now: float, chance: Callable[[], float]
    ) -> list[EndpointTurn]:
        """Put out who fails far more often than the others; all are counted anew."""
        busy = [
            load
            for load in loads
            if not load.standing.out_until and load.standing.calls >= rules.rate_requests
        ]
        rates = [1.0 - load.standing.failed / load.standing.calls for load in busy]
        for load in loads:
            load.standing.calls = load.standing.failed = 0
        if not rules.rate_factor or len(busy) < rules.rate_endpoints:
            return []
        mean = sum(rates) / len(rates)
        deviation = sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
        least = mean - rules.rate_factor * deviation
        turns: list[EndpointTurn] = []
        for load, rate in zip(busy, rates, strict=True):
            if rate < least:
                turns += self._eject(loads, load, "success-rate", now, chance)
        return turns
