"""Runs one call: decides (or finds the kept decision), picks an endpoint, relays both ways, retries where the Plan allows.

A state machine of plain calls between a downstream and an upstream end; it waits only by leaving callbacks (for a cluster, a gate, a
connection, a pause), so a call on a warm path costs no task. Back-pressure: bytes are acknowledged to one side once they left on the other.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from proxy.contract.engine import ListenerSpec
from proxy.contract.head import Headers
from proxy.contract.outcome import PHASED, NotRetried, Outcome, phases_of
from proxy.contract.plan import Cause, Hold, Labels, Plan, Reply
from proxy.engine.portable.answer_fields import passed_on
from proxy.engine.portable.attempt import UpstreamAttempt
from proxy.engine.portable.authorizing import ask
from proxy.engine.portable.breakers import Asking
from proxy.engine.portable.budgets import Budget
from proxy.engine.portable.call_time import CallTime
from proxy.engine.portable.gates import Passage
from proxy.engine.portable.grpc_web_call import WebCall
from proxy.engine.portable.passing import Refused, Told
from proxy.engine.portable.plans import Kept, draw_route
from proxy.engine.portable.read_head import request_head
from proxy.engine.portable.request_body import RequestBody
from proxy.engine.portable.retrying import (
    IMMEDIATE,
    Failure,
    Retrying,
    SoFar,
    heard_by_gates,
    is_failure,
)
from proxy.engine.portable.under_way import UnderWay
from proxy.engine.portable.waits import CallerProgress, Waits
from proxy.wire import answers
from proxy.wire.deadlines import grpc_left_s, read_left_s
from proxy.wire.edits import edit_trailers
from proxy.wire.grpc_web import content_type
from proxy.wire.http2 import Stream
from proxy.wire.streams import Downstream, RawHead

if TYPE_CHECKING:
    from proxy.engine.portable.carrier import Carrier

_LEAST_S = 0.001  # that an attempt must have left: with less, it would only cost its callee
_PASSED = "the call's deadline passed"


class Exchange:
    """One call. Mutable state in four groups: the decision, the attempts, the request body kept for them, the answer so far."""

    __slots__ = (
        "_breaker",
        "_cancels",
        "_done",
        "_down",
        "_down_bytes",
        "_down_drained",
        "_gates",
        "_kept",
        "_listener",
        "_progress",
        "_refusal",
        "_retrying",
        "_time",
        "_upper_answer",
        "_waits",
        "body",
        "budget",
        "carrier",
        "head",
        "head_ns",
        "held_as",
        "is_committed",
        "number",
        "raw",
        "route",
        "span",
        "started_ns",
        "status",
        "told",
        "tried",
        "under_way",
    )

    def __init__(
        self,
        carrier: "Carrier",
        listener: ListenerSpec,
        down: Downstream,
        raw: RawHead,
        *,
        peer: str | None,
        address: str,
        number: int = 0,
    ) -> None:
        self.carrier = carrier
        self._listener = listener
        self._down = down
        self.raw = raw
        self.head, self._refusal = request_head(raw, listener.name, peer, address)
        self.started_ns = time.time_ns()
        self.number = number
        self._waits = Waits()
        self.span = carrier.tracing.begin(raw.headers, grpc=raw.protocol == "grpc")
        self._kept: Kept | None = None
        self.held_as: Labels | None = None  # while it waits for its callee to be found
        self.route = 0
        self._time = CallTime()
        self._gates: Passage | None = None
        self._breaker: Asking | None = None
        # What the caller is told beside, should the call end by this attempt or gate.
        self.told: Told | None = None
        self._cancels: list[Callable[[], None]] = []
        # the attempts
        self.under_way = UnderWay()
        self.tried: set[str] = set()
        self._retrying = Retrying(())
        self.budget: Budget | None = None
        self.body = RequestBody(raw.framing, carrier.replay)
        self.is_committed = self._done = False
        self._upper_answer = False  # its body goes on in upper case
        self.status = self.head_ns = self._down_bytes = self._down_drained = 0
        self._progress = CallerProgress(carrier.now())

    # --- deciding --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the head, decide, and go."""
        if self._refusal is not None:
            self._answer(answers.bad_request(self._refusal, self._listener, self.raw.headers), "")
            return
        if self.raw.protocol == "grpc":
            self._limit(grpc_left_s(self.raw.headers))
        elif self.raw.protocol != "websocket":
            self._limit(read_left_s(self.raw.headers, time.time()))
        self._decide(self.carrier.now())

    def _decide(self, since: float) -> None:
        decision = self.carrier.decide(self._listener, self.head)
        is_held, self.held_as = self.held_as is not None, None
        if isinstance(decision, Hold):
            self.held_as = decision.then.labels
            if not is_held:
                self.carrier.tell_begun(self, self.held_as)
            self._hold(decision, since)
            return
        self.carrier.tell_begun(self, decision.decision.labels)
        if isinstance(decision.decision, Reply):
            self._reply(decision.decision)
        else:
            self.span = self.carrier.sampled(self.span, decision.decision.labels)
            self._carry(decision, decision.decision)

    def _reply(self, reply: Reply) -> None:
        """The answer of a decision, once the gates before it let the call through."""

        def passed(refused: Refused | None) -> None:
            self._waits.end()
            if refused is None:
                self._answer(reply, self.head.path)
            else:
                self.told = refused.told
                self._answer(reply.local_replies[refused.cause], refused.detail)

        if not reply.gates:
            passed(None)
            return
        self._pass_gates(reply.gates, passed)

    def decide_again(self) -> None:
        """The rules changed: a call that they deny now ends, answered where no answer has begun."""
        if self._done or self._kept is None:
            return
        plans = self.carrier.plans
        found = plans.find(self.head) or plans.decide(self._listener.decide, self.head)
        if isinstance(found, Hold) or not isinstance(found.decision, Reply):
            return
        if found.decision.cause is Cause.DENIED:
            self._deny(found.decision)

    def _deny(self, reply: Reply) -> None:
        detail = "the access policy changed while the call was open"
        self._end_attempts(Cause.DENIED, detail)
        if not self.is_committed:
            self._answer(reply, self.head.path)
        elif self._can_end_grpc():
            self._end_grpc(reply, detail)
            self._finish(Cause.DENIED, reply, reply.grpc_code)
        else:
            self._down.abort(Cause.DENIED)
            self._finish(Cause.DENIED, reply)

    def _hold(self, hold: Hold, since: float) -> None:
        left = since + hold.for_s - self.carrier.now()
        if left <= 0:
            self._answer(hold.then, self.carrier.explain(hold.key))
            return

        self._waits.begin("resolve")

        def decide() -> None:
            self._waits.end()
            self._cancel_waits()
            if not self._done:
                self._decide(since)

        self._cancels.append(self.carrier.clusters.wait(hold.key, decide))
        # The news may be in, and its push on the way.
        self._cancels.append(self.carrier.later(left, decide).cancel)

    def _carry(self, kept: Kept, plan: Plan) -> None:
        self._kept = kept
        size = max(self.raw.length or 0, self.body.size)  # a held call may have its body already
        if plan.body_bytes is not None and size > plan.body_bytes:
            self._answer(plan.local_replies[Cause.TOO_LARGE], f"{size} bytes, the limit is {plan.body_bytes}")
            return
        self._limit(plan.total_s)
        if kept.edits[0].grpc_web:
            self._limit(grpc_left_s(self.raw.headers))
        self.body.keep_bytes = plan.replay_bytes
        if plan.upper_request or plan.upper_response:
            may_be = self.raw.protocol in {"http1", "http2"} and not content_type(self.raw)
            self.body.is_upper = may_be and plan.upper_request
            self._upper_answer = may_be and plan.upper_response
        if plan.budget is not None:
            self.budget = self.carrier.budgets.find(plan.budget)
            self.budget.begun(self.carrier.now())
        is_stream = self.raw.framing == "stream" and self.raw.protocol != "grpc"
        self._retrying = Retrying(plan.retries, self.budget, is_stream=is_stream)
        self.route = draw_route(plan.routes, self.carrier.rng)  # once: attempts stay on one side of a split
        if plan.gates:
            self._pass_gates(plan.gates, self._let_through)
        else:
            self._authorize()

    def _pass_gates(self, gates: Sequence[str], passed: Callable[[Refused | None], None]) -> None:
        self._waits.begin("queue")
        self._gates = Passage(self.carrier, gates, self.head.who, passed)
        self._gates.go_on()

    def _let_through(self, refused: Refused | None) -> None:
        self._waits.end()
        if refused is None:
            self._authorize()
        else:
            self.told = refused.told
            self._answer(self.plan.local_replies[refused.cause], refused.detail)

    def _authorize(self) -> None:
        if self.plan.authorizers:
            self._waits.begin("authorize")
        self._cancels.append(ask(self._listener.authorize, self.kept_plan, self.head, self._authorized))

    def _authorized(self, found: Kept | tuple[Reply, str, Told | None]) -> None:
        self._waits.end()
        if isinstance(found, Kept):
            self._kept = found
            self.attempt()
        else:
            reply, detail, self.told = found
            self._answer(reply, detail)

    def _limit(self, limit_s: float | None) -> None:
        self._time.limit(limit_s, self.carrier, self._deadline_passed)

    def _deadline_passed(self) -> None:
        if self._done:
            return
        self._retrying.why = NotRetried.DEADLINE
        self._stop(Cause.TIMEOUT, _PASSED)

    # --- attempts --------------------------------------------------------------------------------------------------------

    @property
    def carried_as(self) -> Labels | None:
        """The labels of a call that is being carried."""
        return self.plan.labels if self._kept is not None and isinstance(self._kept.decision, Plan) else None

    @property
    def is_stream(self) -> bool:
        """Whether it came as a stream of HTTP/2."""
        return isinstance(self._down, Stream)

    @property
    def plan(self) -> Plan:
        """How the call is carried, once that is decided."""
        decision = self.kept_plan.decision
        assert isinstance(decision, Plan)
        return decision

    @property
    def kept_plan(self) -> Kept:
        """The same with its edits made ready."""
        assert self._kept is not None
        return self._kept

    def attempt(self) -> None:
        """Begin an attempt, unless no time is left for it, or the circuit breaker refuses it."""
        self._cancel_waits()
        now = self.carrier.now()
        left_s = self._time.left_s(now)
        if left_s is not None and left_s < _LEAST_S:
            self._deadline_passed()
            return
        self._retrying.why = None
        use = self.plan.breaker
        if use is not None:
            self._breaker = self._breaker or Asking()
            refused = self._breaker.ask(self.carrier.breakers, use, self.head, now)
            if refused is not None:
                self.fail_for_good(refused.cause, refused.detail)
                return
        self.under_way.begin(self)

    def left_s(self) -> float | None:
        """What an attempt that begins now has, of the call's time and of its own."""
        left_s = self._time.left_s(self.carrier.now())
        attempt_s = self.plan.attempt_s
        return left_s if attempt_s is None else attempt_s if left_s is None else min(left_s, attempt_s)

    # --- request events ----------------------------------------------------------------------------------------------------

    def request_data(self, data: bytes) -> None:
        """Some of the request body: keep it while another attempt may need it, and pass it on."""
        if self._done:
            self._down.ack(len(data))
            return
        limit = self.plan.body_bytes if self._kept is not None else None
        if limit is not None and self.body.size + len(data) > limit:
            self._stop(Cause.TOO_LARGE, f"more than {limit} bytes")
            return
        self.body.arrive(data)
        self.under_way.give_body()

    def request_end(self, trailers: Headers) -> None:
        """The request is complete."""
        if self.body.ended:
            return
        self.body.ended = True
        self.body.ended_at = self.carrier.now()
        self.body.trailers = trailers
        self.under_way.finish_request()

    def request_gone(self, detail: str) -> None:
        """The caller hung up: cancel the call at the callee at once."""
        if self._done:
            return
        self._end_attempts(Cause.CALLER_LEFT, detail)
        self._finish(Cause.CALLER_LEFT)

    def check_progress(self, now: float) -> None:
        """Called every second or so: cut off a caller that neither sends what it announced nor reads what it asked for.

        Bodies of unknown length may pause as they like, and so may those who read gRPC or a tunnel: that is how streams are.
        """
        body, limits = self.body, self.carrier.limits
        is_sender = self.raw.framing == "length" and not body.ended and body.has_left_so_far
        is_reader = self._down_bytes > self._down_drained and self.raw.protocol in {"http1", "http2"}
        moved = body.size + self._down_drained
        is_stalled = self._progress.is_stalled(now, moved, limits, is_waited_for=is_sender or is_reader)
        if is_stalled and not self._done:
            self.carrier.observer.refused_frames("slow-reader" if is_reader else "slow-body")
            self._end_attempts(Cause.CALLER_LEFT, f"the caller stalled for {limits.stall_s:g} s")
            self._down.abort(Cause.CALLER_LEFT)
            self._finish(Cause.CALLER_LEFT)

    def response_drained(self, count: int) -> None:
        """The caller took bytes: the callee may send more."""
        self._down_drained += count
        attempt = self.under_way.the_one
        if attempt is not None and attempt.upstream is not None:
            attempt.upstream.ack(count)

    # --- response events ---------------------------------------------------------------------------------------------------

    def request_drained(self, fresh: int) -> None:
        """Bytes left for a callee for the first time: the caller may send more."""
        if fresh and not self._done:
            self._down.ack(fresh)

    def inform(self, status: int, headers: Headers) -> None:
        """A 1xx answer goes through."""
        if not self.is_committed:
            self._down.inform(status, headers)

    def commit(self, attempt: UpstreamAttempt, status: int, headers: Headers, *, end: bool) -> None:
        """Pass an attempt's answer on from now on: no further one, and no other's."""
        self.under_way.keep(attempt)
        self.is_committed = True
        self.head_ns = attempt.record.head_ns
        self.status = status
        use = self.plan.breaker
        if use is not None and use.is_opening:
            is_fine = status == 101 or self.under_way.is_denial(attempt.record, self.plan)
            self._tell_breaker(is_failure(status, None) and not is_fine)
        fields = passed_on(self.kept_plan, self.raw, self.span, status, headers)
        passed = (*fields, *attempt.fault_headers)
        self._down.respond(status, passed, end=end)
        self.carrier.tell_answered(self, passed)

    def deliver(self, data: bytes) -> None:
        """Some of the answer's body."""
        self._down_bytes += len(data)
        self._down.send(data.upper() if self._upper_answer else data)  # of ASCII letters

    def end_answer(self, trailers: Headers) -> None:
        """The answer is whole."""
        self._down.finish(edit_trailers(self.kept_plan.reply_edits, trailers))

    def complete(self) -> None:
        """Nothing is left to do."""
        self._finish(None)

    # --- failing and ending ------------------------------------------------------------------------------------------------

    def attempt_failed(self, cause: Cause, detail: str, *, for_good: bool = False) -> None:
        """It came to nothing: another endpoint at once, another attempt later, or the answer for the cause.

        for_good: no other attempt may help, unless it is under way already.
        """
        if self.under_way.count:
            return
        delay_s: float | None = None
        if self.is_committed:
            self._retrying.why = self._retrying.why or NotRetried.BEGUN
        elif not for_good:
            at_once = cause in IMMEDIATE and self.under_way.may_try_another(self)
            delay_s = 0.0 if at_once else self.next_delay(Failure(cause))
        if delay_s is not None:
            self.retry(delay_s)
        elif cause is Cause.NO_ENDPOINT:
            self.fail_for_good(cause, self.carrier.explain(self.plan.routes[self.route].cluster))
        else:
            self.fail_for_good(cause, detail)

    @property
    def may_retry_grpc(self) -> bool:
        """Whether a gRPC status that comes after the head could still mean another attempt."""
        return self.body.is_whole and self._retrying.may_read_grpc

    def next_delay(self, failure: Failure) -> float | None:
        """Seconds until another attempt after such a failure, 0 where one is under way already; None: this was the last."""
        if self.under_way.count > 1 and self._retrying.covers(failure):
            return 0.0
        now = self.carrier.now()
        left_s = self._time.left_s(now)
        elapsed_s = (time.time_ns() - self.started_ns) / 1e9
        so_far = SoFar(self.under_way.begun, elapsed_s, left_s, now, is_kept=self.body.is_whole)
        pause = self._retrying.next_pause(so_far, failure)
        if pause is None:
            return None
        if not pause.is_inner:
            self._tell_breaker(True)
        return pause.delay_s

    def note_late(self, code: int | None, *, was_kept: bool) -> None:
        """How a gRPC answer ended that had begun. was_kept: the request could have been sent again until then."""
        if code:
            self._retrying.note_late(Failure(Cause.STATUS, self.status, code), was_kept=was_kept)

    def _tell_breaker(self, has_failed: bool) -> None:
        if self._breaker is not None:
            self._breaker.tell(self.carrier.now(), is_failure=has_failed)

    def retry(self, delay_s: float) -> None:
        """Begin another attempt after so many seconds, unless one is under way."""

        def again() -> None:
            if not self._done:
                self.attempt()

        if self.under_way.count:
            return
        if delay_s <= 0:
            again()
        else:
            self._cancels.append(self.carrier.later(delay_s, again).cancel)

    def fail_for_good(self, cause: Cause, detail: str) -> None:
        """The ready-made answer for the cause, or the visible end of what has begun."""
        if self._done:
            return
        if self.is_committed and cause is Cause.TIMEOUT and self._can_end_grpc():
            reply = self.plan.local_replies[cause]
            self._end_grpc(reply, detail)
            self._finish(cause, None, reply.grpc_code)
        elif self.is_committed:
            self._down.abort(cause)
            self._finish(cause)
        elif self._kept is None:
            found = self.carrier.plans.decide(self._listener.decide, self.head)
            decision = found if isinstance(found, Hold) else found.decision
            self._answer(answers.timed_out(decision, self._listener, self.raw.headers), detail)
        else:
            self._answer(self.plan.local_replies[cause], detail)

    def _end_grpc(self, reply: Reply, detail: str) -> None:
        web = content_type(self.raw) if self._web is not None else b""
        answers.end_grpc(self._down, reply, detail, self.span, web)

    def _can_end_grpc(self) -> bool:
        """Whether a begun gRPC answer can still end with a status: not behind bytes that the caller may never read."""
        web = self._web
        is_grpc = self.raw.protocol == "grpc" or (web is not None and web.is_between_messages)
        return is_grpc and self._down_drained == self._down_bytes

    @property
    def _web(self) -> WebCall | None:
        """Where gRPC-Web is made gRPC: the answer that is passed on."""
        return None if self.under_way.the_one is None else self.under_way.the_one.web

    def _end_attempts(self, cause: Cause, detail: str) -> None:
        self._cancel_waits()
        self.under_way.end(cause, detail)

    def _stop(self, cause: Cause, detail: str) -> None:
        self._end_attempts(cause, detail)
        self.fail_for_good(cause, detail)

    def _answer(self, reply: Reply, detail: str) -> None:
        """An answer of our own, HTTP or gRPC by what was asked."""
        self.status = reply.status
        if self._kept is None:
            self.span = self.carrier.sampled(self.span, reply.labels)
        code, self._down_bytes = answers.send(
            self._down,
            reply,
            detail,
            self.span,
            grpc=self.raw.protocol == "grpc",
            web=content_type(self.raw),
            head=self.head.method == "HEAD",
            told=self.told if self.told is not None and self.told.fits(reply.cause) else None,
        )
        self._finish(reply.cause, reply, code)

    def _finish(self, cause: Cause | None, reply: Reply | None = None, grpc_code: int | None = None) -> None:
        if self._done:
            return
        self._done = True
        self._waits.end()
        self._cancel_waits()
        self._time.stop()
        self.body.let_go()
        answer_begun, attempts = self.under_way.answer_begun, self.under_way.close()
        if grpc_code is None and attempts and cause is None:
            grpc_code = attempts[-1].grpc_code
        heard = heard_by_gates(cause, self.status, grpc_code)
        gates, self._gates = self._gates, None  # it points back here: no cycles to collect
        if gates is not None:
            gates.leave(heard, answer_begun)
        is_denied = cause is Cause.DENIED or self.under_way.ended_denied(self._kept)
        self._tell_breaker(heard is not None and not is_denied)
        has_failed = heard not in {None, Cause.CALLER_LEFT} and self.status != 101
        if self.budget is not None and heard is None:
            self.budget.succeeded(self.carrier.now())
        decision = reply or (self._kept.decision if self._kept is not None else None)
        outcome = Outcome(
            head=self.head,
            labels=decision.labels if decision is not None else answers.unlabelled(self._listener.name),
            trace=self.span,
            started_ns=self.started_ns,
            head_ns=self.head_ns,
            ended_ns=time.time_ns(),
            status=self.status,
            grpc_code=grpc_code,
            cause=cause,
            attempts=attempts,
            up_bytes=self.body.size,
            down_bytes=self._down_bytes,
            breaker=self._breaker.met if self._breaker is not None else None,
            not_retried=self._retrying.why if has_failed else None,
            resolve_ns=self._waits.resolve_ns,
            queue_ns=self._waits.queue_ns,
            authorize_ns=self._waits.authorize_ns,
            number=self.number,
        )
        if self.number % PHASED == 0 and (phases := phases_of(outcome)) is not None:
            self.carrier.observer.phased(outcome.labels, phases)
        self.carrier.finished(self, outcome)

    def _cancel_waits(self) -> None:
        cancels, self._cancels = self._cancels, []
        for cancel in cancels:
            cancel()

    def cut(self) -> None:
        """The engine stops: end the call visibly."""
        if not self._done:
            self._end_attempts(Cause.DRAINING, "the proxy is shutting down")
            self._down.abort(Cause.DRAINING)
            self._finish(Cause.DRAINING)
