"""Which failures of one call are retried, and after what pause: a Plan's rules with the pauses drawn so far."""

from collections.abc import Sequence
from typing import NamedTuple

from proxy.contract.plan import Cause, Delays, RetryPolicy

# Nobody processed it: another endpoint may, at once.
IMMEDIATE = frozenset({Cause.CONNECT, Cause.REFUSED, Cause.TLS_IDENTITY})


def is_failure(status: int, code: int | None) -> bool:
    """Whether an answer counts as one, by its gRPC code or its HTTP status."""
    return code != 0 if code is not None else not 200 <= status <= 399


def heard_by_gates(cause: Cause | None, status: int, code: int | None) -> Cause | None:
    """How something ended: an app's answer that is a failure counts, whether or not it was passed on."""
    return Cause.STATUS if cause is None and is_failure(status, code) else cause


def covers(policy: RetryPolicy, cause: Cause, status: int, code: int | None) -> bool:
    """Whether a rule speaks of this failure: a cause of ours, or an answer by its gRPC code or HTTP status."""
    if cause is not Cause.STATUS:
        return cause in policy.on
    codes, found = (policy.http_codes, status) if code is None else (policy.grpc_codes, code)
    return is_failure(status, code) and (codes is None or found in codes)


class Pause(NamedTuple):
    """Seconds until another attempt. is_inner: by an inner rule."""

    delay_s: float
    is_inner: bool = False


class Retrying:
    """The rules of one call. Mutable state: the pauses left, by rule."""

    __slots__ = ("_delays", "_rules")

    def __init__(self, rules: Sequence[RetryPolicy]) -> None:
        self._rules = rules
        self._delays: dict[int, Delays] = {}

    @property
    def may_read_grpc(self) -> bool:
        """Whether a gRPC status that comes after the head could still mean another attempt."""
        return any(policy.grpc_codes is None or policy.grpc_codes for policy in self._rules)

    def covers(self, cause: Cause, status: int, code: int | None) -> bool:
        """Whether any rule speaks of this failure."""
        return any(covers(policy, cause, status, code) for policy in self._rules)

    def next_pause(
        self, attempts: int, elapsed_s: float, cause: Cause, status: int = 0, code: int | None = None
    ) -> Pause | None:
        """Until the next attempt after so many and so long; None: no more. The first rule that covers the failure decides."""
        for number, policy in enumerate(self._rules):
            if covers(policy, cause, status, code):
                if policy.attempts is not None and attempts >= policy.attempts:
                    return None
                delay = next(self._delays.setdefault(number, policy.delays_s()), None)
                is_late = delay is None or (
                    policy.within_s is not None and elapsed_s + delay > policy.within_s
                )
                return None if delay is None or is_late else Pause(delay, policy.is_inner)
        return None
