"""Which failures of one call are retried, and after what pause: a Plan's rules with the pauses drawn so far."""

from collections.abc import Sequence
from typing import NamedTuple

from proxy.contract.outcome import NotRetried
from proxy.contract.plan import Cause, Delays, RetryPolicy
from proxy.engine.portable.budgets import Budget
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
    """Whether a rule speaks of this failure: a cause of ours, or an answer by its gRPC code or HTTP status.

    A denial is for the rules that name its status.
    """
    if cause not in {Cause.STATUS, Cause.DENIED}:
        return cause in policy.on
    codes, found = (policy.http_codes, status) if code is None else (policy.grpc_codes, code)
    is_named = cause is Cause.STATUS if codes is None else found in codes
    return is_failure(status, code) and is_named


class Failure(NamedTuple):
    """How an attempt failed: by a cause of ours, or by an answer. pushback: what that asks for."""

    cause: Cause
    status: int = 0
    code: int | None = None
    pushback: Pushback | None = None


class SoFar(NamedTuple):
    """What came of a call: attempts that were begun, seconds since its start, and until its deadline.

    now: the loop's clock. is_kept: its request can be sent again.
    """

    attempts: int
    elapsed_s: float
    left_s: float | None
    now: float
    is_kept: bool = True


class Pause(NamedTuple):
    """Seconds until another attempt. is_inner: by an inner rule."""

    delay_s: float
    is_inner: bool = False


class Retrying:
    """The rules of one call, and the budget that retries are taken from. is_stream: its body is of unknown length.

    Mutable state: the pauses left, by rule, how many were by inner ones, the attempts before the last one of another, and `why` the
    failure at hand is the call's last.
    """

    __slots__ = ("_before", "_budget", "_delays", "_inner", "_is_stream", "_rules", "why")

    def __init__(
        self, rules: Sequence[RetryPolicy], budget: Budget | None = None, *, is_stream: bool = False
    ) -> None:
        self._rules = rules
        self._budget = budget
        self._is_stream = is_stream
        self._delays: dict[int, Delays] = {}
        self._inner = self._before = 0
        self.why: NotRetried | None = None

    @property
    def may_read_grpc(self) -> bool:
        """Whether a gRPC status that comes after the head could still mean another attempt."""
        return any(policy.grpc_codes is None or policy.grpc_codes for policy in self._rules)

    def covers(self, failure: Failure) -> bool:
        """Whether any rule speaks of this failure."""
        return any(covers(policy, failure.cause, failure.status, failure.code) for policy in self._rules)

    def next_pause(self, sofar: SoFar, failure: Failure) -> Pause | None:
        """Until the next attempt; None: there is none.

        The first rule that covers the failure decides; where an inner one has no attempt left, the next.
        """
        found = self._found(sofar, failure) if sofar.is_kept else self._why_not(failure, NotRetried.BODY)
        if isinstance(found, Pause):
            return found
        self.why = found
        return None

    def note_late(self, failure: Failure, *, was_kept: bool) -> None:
        """An answer that had begun ended as a failure. was_kept: the request could have been sent again until it began."""
        self.why = self._why_not(failure, NotRetried.BEGUN if was_kept else NotRetried.BODY)

    def _why_not(self, failure: Failure, covered: NotRetried) -> NotRetried:
        """Why a failure is not retried that no rule is asked about. covered: where one speaks of it."""
        if self.covers(failure):
            return covered
        if failure.cause is Cause.DENIED:
            return NotRetried.DENIED
        return NotRetried.STREAMING if self._is_stream and not self._rules else NotRetried.NOT_COVERED

    def _found(self, sofar: SoFar, failure: Failure) -> Pause | NotRetried:
        why = self._why_not(failure, NotRetried.NO_ATTEMPTS)
        for number, policy in enumerate(self._rules):
            if not covers(policy, failure.cause, failure.status, failure.code):
                continue
            if self._budget is not None and not policy.is_inner:
                self._budget.failed(sofar.now)
            found = self._pause_by(number, policy, sofar, failure)
            if isinstance(found, Pause) or not policy.is_inner:
                return found
            why = found
        return why

    def _pause_by(
        self, number: int, policy: RetryPolicy, sofar: SoFar, failure: Failure
    ) -> Pause | NotRetried:
        delay_s = self._draw(number, policy, sofar.attempts)
        if delay_s is None:
            return NotRetried.NO_ATTEMPTS
        if policy.heeds_answer and failure.pushback is not None:
            delay_s = failure.pushback.applied(delay_s)
            if delay_s is None:
                return NotRetried.PUSHBACK
        if policy.within_s is not None and sofar.elapsed_s + delay_s > policy.within_s:
            return NotRetried.TOO_LATE
        if sofar.left_s is not None and delay_s >= sofar.left_s:
            return NotRetried.DEADLINE
        if self._budget is not None and not policy.is_inner and not self._budget.take(sofar.now):
            return NotRetried.BUDGET
        self._note(policy, sofar.attempts)
        return Pause(delay_s, policy.is_inner)

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
