"""Which failures of one call are retried, and after what pause: a Plan's rules with the pauses drawn so far."""

from collections.abc import Sequence
from typing import NamedTuple

from proxy.contract.plan import Cause, Delays, RetryPolicy
from proxy.wire.pushback import Pushback

# Nobody processed it: another endpoint may, at once.
_NO_ROOM = frozenset({429, 503})
_NO_ROOM_GRPC = frozenset({8, 14})
IMMEDIATE = frozenset({Cause.CONNECT, Cause.REFUSED, Cause.TLS_IDENTITY})


def is_failure(status: int, code: int | None) -> bool:
    """Whether an answer counts as one, by its gRPC code or its HTTP status."""
    return code != 0 if code is not None else not 200 <= status <= 399


def heard_by_gates(cause: Cause | None, status: int, code: int | None) -> Cause | None:
    """How something ended: an app's answer that is a failure counts, whether or not it was passed on.

    One that says that there was no room is SHED: 429 and 503, RESOURCE_EXHAUSTED and UNAVAILABLE.
    """
    if cause not in {None, Cause.STATUS} or not is_failure(status, code):
        return cause
    has_no_room = status in _NO_ROOM if code is None else code in _NO_ROOM_GRPC
    return Cause.SHED if has_no_room else Cause.STATUS


def covers(policy: RetryPolicy, cause: Cause, status: int, code: int | None) -> bool:
    """Whether a rule speaks of this failure: a cause of ours, or an answer by its gRPC code or HTTP status."""
    if cause is not Cause.STATUS:
        return cause in policy.on
    codes, found = (policy.http_codes, status) if code is None else (policy.grpc_codes, code)
    return is_failure(status, code) and (codes is None or found in codes)


class Failure(NamedTuple):
    """How an attempt failed: by a cause of ours, or by an answer. pushback: what that asks for."""

    cause: Cause
    status: int = 0
    code: int | None = None
    pushback: Pushback | None = None


class Pause(NamedTuple):
    """Seconds until another attempt. is_inner: by an inner rule."""

    delay_s: float
    is_inner: bool = False


class Retrying:
    """The rules of one call.

    Mutable state: the pauses left, by rule, how many were by inner ones, and the attempts before the last one of another.
    """

    __slots__ = ("_before", "_delays", "_inner", "_rules")

    def __init__(self, rules: Sequence[RetryPolicy]) -> None:
        self._rules = rules
        self._delays: dict[int, Delays] = {}
        self._inner = self._before = 0

    @property
    def may_read_grpc(self) -> bool:
        """Whether a gRPC status that comes after the head could still mean another attempt."""
        return any(policy.grpc_codes is None or policy.grpc_codes for policy in self._rules)

    def covers(self, cause: Cause, status: int, code: int | None) -> bool:
        """Whether any rule speaks of this failure."""
        return any(covers(policy, cause, status, code) for policy in self._rules)

    def next_pause(self, attempts: int, elapsed_s: float, failure: Failure) -> Pause | None:
        """Until the next attempt after so many and so long; None: no more.

        The first rule that covers the failure decides; where an inner one has no attempt left, the next.
        """
        for number, policy in enumerate(self._rules):
            if not covers(policy, failure.cause, failure.status, failure.code):
                continue
            delay_s = self._draw(number, policy, attempts)
            if delay_s is not None and policy.heeds_answer and failure.pushback is not None:
                delay_s = failure.pushback.applied(delay_s)
            is_late = delay_s is not None and (
                policy.within_s is not None and elapsed_s + delay_s > policy.within_s
            )
            if delay_s is not None and not is_late:
                self._note(policy, attempts)
                return Pause(delay_s, policy.is_inner)
            if not policy.is_inner:
                return None
        return None

    def _draw(self, number: int, policy: RetryPolicy, attempts: int) -> float | None:
        counted = attempts - (self._before if policy.is_inner else self._inner)
        if policy.attempts is not None and counted >= policy.attempts:
            return None
        return next(self._delays.setdefault(number, policy.delays_s()), None)

    def _note(self, policy: RetryPolicy, attempts: int) -> None:
        if policy.is_inner:
            self._inner += 1
            return
        self._before = attempts
        for number, other in enumerate(self._rules):
            if other.is_inner:
                self._delays.pop(number, None)
