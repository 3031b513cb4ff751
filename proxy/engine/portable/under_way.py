"""The attempts of one call that are under way: one, or several at once."""

from asyncio import TimerHandle
from typing import TYPE_CHECKING

from proxy.contract.outcome import Attempt
from proxy.contract.plan import Cause, Plan
from proxy.engine.portable.attempt import UpstreamAttempt
from proxy.engine.portable.passing import Begun
from proxy.engine.portable.plans import Kept
from proxy.engine.portable.retrying import IMMEDIATE

if TYPE_CHECKING:
    from proxy.engine.portable.exchange import Exchange

# Such an attempt reached no app.
UNPROCESSED = IMMEDIATE | {Cause.APP_DOWN, Cause.APP_UNHEALTHY, Cause.MISDIRECTED}
_IMMEDIATE_TRIES = 3
# Whose upstream is given up for another attempt's: to it, its caller has left.
_OUTRUN, _OUTRUN_BY = Cause.CALLER_LEFT, "another attempt of the call went on"


class UnderWay:
    """Mutable state: the attempts, the records of all that were begun, and `the_one`.

    That is the attempt whose answer is passed on, or the only one that can send all of the request: others are ended. And what another
    attempt beside them waits for, where the Plan has a hedge.
    """

    __slots__ = ("_each", "_hedging", "_records", "answer_begun", "is_by_daprd", "the_one")

    def __init__(self) -> None:
        self._each: list[UpstreamAttempt] = []
        self._records: list[Attempt] = []
        self.is_by_daprd = False  # an attempt took the route for peers that are daprds
        self._hedging: TimerHandle | None = None
        self.the_one: UpstreamAttempt | None = None
        self.answer_begun: Begun = "never"

    def begin(self, exchange: "Exchange") -> None:
        """One more."""
        attempt = UpstreamAttempt(exchange)
        self._each.append(attempt)
        self._records.append(attempt.record)
        attempt.start()
        hedge = exchange.plan.hedge
        if hedge is not None and self.begun < hedge.attempts:
            self._await_hedge(exchange, hedge.delay_s)

    def _await_hedge(self, exchange: "Exchange", delay_s: float) -> None:
        self._cancel_hedge()
        if self._each and self.the_one is None:
            self._hedging = exchange.carrier.later(delay_s, self._hedge, exchange, delay_s)

    def _hedge(self, exchange: "Exchange", delay_s: float) -> None:
        self._hedging = None
        if not self._each or self.the_one is not None:
            return
        if not exchange.body.ended:
            self._await_hedge(exchange, 2 * delay_s)  # some requests never are complete
        elif exchange.budget is None or exchange.budget.take(exchange.carrier.now()):
            self.begin(exchange)

    def _cancel_hedge(self) -> None:
        if self._hedging is not None:
            self._hedging.cancel()
            self._hedging = None

    @property
    def begun(self) -> int:
        """How many there were so far."""
        return len(self._records)

    def processed_before(self, attempt: UpstreamAttempt) -> int:
        """How many others were begun that a callee may have processed."""
        others = (record for record in self._records if record is not attempt.record)
        return sum(bool(other.sent_ns) and other.cause not in UNPROCESSED for other in others)

    @property
    def count(self) -> int:
        """How many are under way."""
        return len(self._each)

    def is_the_one(self, attempt: UpstreamAttempt) -> bool:
        """Whether anything that comes before its answer may be passed on."""
        return self.count == 1 if self.the_one is None else self.the_one is attempt

    def keep(self, attempt: UpstreamAttempt) -> None:
        """It is the one: the others are ended."""
        if self.the_one is None:
            self.the_one = attempt
            for other in tuple(self._each):
                if other is not attempt:
                    other.end(_OUTRUN, _OUTRUN_BY, abort=True)

    @staticmethod
    def may_try_another(exchange: "Exchange") -> bool:
        """Whether an endpoint is left for a call that certainly was not processed."""
        state = exchange.carrier.clusters.get(exchange.plan.routes[exchange.route].cluster)
        return (
            exchange.body.is_whole
            and state is not None
            and state.untried(exchange.tried)
            and len(exchange.tried) <= _IMMEDIATE_TRIES
        )

    def is_denial(self, record: Attempt, plan: Plan) -> bool:
        """Whether the answer of an attempt is the decision of the callee's proxy, and no failure, as it is to daprds."""
        return record.said is Cause.DENIED and not plan.denials_fail and not self.is_by_daprd

    def ended_denied(self, kept: Kept | None) -> bool:
        """Whether that is how a call ended, once all are over."""
        plan = kept.decision if kept is not None else None
        return isinstance(plan, Plan) and bool(self._records) and self.is_denial(self._records[-1], plan)

    def note_begun(self, attempt: UpstreamAttempt, begun: Begun) -> None:
        """When its answer began: that of the call, unless another is the one."""
        if self.the_one is None or self.the_one is attempt:
            self.answer_begun = begun

    def forget(self, attempt: UpstreamAttempt) -> None:
        """It has ended."""
        self._each.remove(attempt)

    def give_body(self) -> None:
        """Send on what came of the request."""
        for attempt in tuple(self._each):
            attempt.give_body()

    def finish_request(self) -> None:
        """The request is complete."""
        for attempt in tuple(self._each):
            attempt.finish_request()

    def end(self, cause: Cause, detail: str) -> None:
        """End those that are left."""
        for attempt in tuple(self._each):
            attempt.end(cause, detail, abort=True)

    def close(self) -> list[Attempt]:
        """The call is over, and so are all. The records as they were begun, but that of the one comes last: by it the call ended."""
        self._cancel_hedge()
        the_one, self.the_one = self.the_one, None  # it points back here: no cycles to collect
        if the_one is not None:
            self._records.sort(key=lambda record: record is the_one.record)
        return self._records
