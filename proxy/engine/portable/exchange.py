"""Runs one call: decides (or finds the kept decision), picks an endpoint, relays both ways, tries again where the Plan allows.

A state machine of plain calls between a downstream and an upstream end; it waits only by leaving callbacks (for a cluster, a gate, a
connection, a pause), so a call on a warm path costs no task. Back-pressure: bytes are acknowledged to one side once they left on the other.
"""

import time
from asyncio import TimerHandle
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from proxy import errors
from proxy.contract.engine import ListenerSpec
from proxy.contract.head import Headers
from proxy.contract.outcome import Attempt, Outcome
from proxy.contract.plan import Cause, Hold, Plan, Reply, Route
from proxy.engine.portable.balance import Load
from proxy.engine.portable.edits import (
    HOP_BY_HOP,
    edit_answer,
    edit_request,
    edit_trailers,
    parse_grpc_timeout,
)
from proxy.engine.portable.gates import Passage, Refused
from proxy.engine.portable.grpc_web_call import WebCall
from proxy.engine.portable.plans import Kept
from proxy.engine.portable.pool import Origin, Waiter
from proxy.engine.portable.proving import lost, prove_another
from proxy.engine.portable.read_head import request_head
from proxy.engine.portable.request_body import RequestBody
from proxy.engine.portable.retrying import Retrying, is_failure
from proxy.wire import answers
from proxy.wire.grpc_web import content_type, trailer_frame
from proxy.wire.head_scan import DECLINED, UPGRADE
from proxy.wire.streams import Downstream, RawHead, UpstreamCall, UpstreamConnection

if TYPE_CHECKING:
    from proxy.engine.portable.carrier import Carrier

_IMMEDIATE = frozenset(
    {Cause.CONNECT, Cause.REFUSED, Cause.TLS_IDENTITY}
)  # nobody processed it: another endpoint may, at once
_IMMEDIATE_TRIES = 3
_PROOF_S = 1.0  # for an endpoint that was only announced to show who it is, where another one is left
# What a peer's proxy says when it kept a call from an app: it failed as an endpoint, however fast the answer.
_SAID = {cause.value.encode(): cause for cause in Cause}
_MARKS = {426: UPGRADE, 501: DECLINED}
_KEPT_FROM_APP = frozenset({Cause.APP_DOWN, Cause.APP_UNHEALTHY, Cause.MISDIRECTED, Cause.REFUSED})


class Exchange:
    """One call. Mutable state in four groups: the decision, the attempt, the request body kept for it, the answer so far."""

    __slots__ = (
        "_attempts",
        "_body",
        "_call",
        "_cancels",
        "_carrier",
        "_committed",
        "_deadline_at",
        "_done",
        "_down",
        "_down_bytes",
        "_down_drained",
        "_gates",
        "_gates_of_attempt",
        "_head",
        "_held_head",
        "_is_mesh",
        "_is_peer",
        "_kept",
        "_listener",
        "_load",
        "_moved",
        "_raw",
        "_refusal",
        "_refused_as",
        "_response_head_ns",
        "_retrying",
        "_route",
        "_sent_at",
        "_span",
        "_started_ns",
        "_status",
        "_timers",
        "_tried",
        "_web",
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
    ) -> None:
        self._carrier = carrier
        self._listener = listener
        self._down = down
        self._raw = raw
        self._head, self._refusal = request_head(raw, listener.name, peer, address)
        self._started_ns = time.time_ns()
        self._span = carrier.tracing.begin(raw.headers, grpc=raw.protocol == "grpc")
        self._kept: Kept | None = None
        self._route = 0
        self._deadline_at: float | None = None
        self._gates: Passage | None = None
        self._cancels: list[Callable[[], None]] = []
        self._timers: list[TimerHandle] = []
        # the attempt
        self._call: UpstreamCall | None = None
        self._load: Load | None = None
        self._gates_of_attempt: Passage | None = None
        self._attempts: list[Attempt] = []
        self._tried: set[str] = set()
        self._retrying = Retrying(())
        self._held_head: tuple[int, Headers] | None = None
        self._is_peer = self._is_mesh = False  # the other end is a postern proxy, reached over mutual TLS
        self._refused_as: Cause | None = None
        self._web: WebCall | None = None  # where gRPC-Web is made gRPC
        self._sent_at = 0.0
        self._body = RequestBody(raw.framing)
        # the answer
        self._committed = False
        self._done = False
        self._status = 0
        self._response_head_ns = 0
        self._down_bytes = 0
        self._down_drained = 0
        self._moved = (carrier.now(), 0)  # when the caller last had moved enough, and how much that was

    # --- deciding --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read the head, decide, and go."""
        if self._refusal is not None:
            self._answer(answers.bad_request(self._refusal, self._listener.name), "")
            return
        if self._raw.protocol == "grpc":
            left = self._head.get(b"grpc-timeout")
            if left is not None:
                self._limit(parse_grpc_timeout(left))
        self._decide(self._carrier.now())

    def _decide(self, since: float) -> None:
        decision = self._carrier.decide(self._listener, self._head)
        if isinstance(decision, Hold):
            self._hold(decision, since)
        elif isinstance(decision.decision, Reply):
            self._answer(decision.decision, self._head.path)
        else:
            self._carry(decision, decision.decision)

    def judge_again(self) -> None:
        """The rules changed: a call that they deny now ends, answered where no answer has begun."""
        if self._done or self._kept is None:
            return
        plans = self._carrier.plans
        found = plans.find(self._head) or plans.decide(self._listener.decide, self._head)
        if isinstance(found, Hold) or not isinstance(found.decision, Reply):
            return
        reply = found.decision
        if reply.cause is Cause.DENIED:
            self._deny(reply)

    def _deny(self, reply: Reply) -> None:
        detail = "the access policy changed while the call was open"
        self._end_attempt(Cause.DENIED, detail, abort=True)
        if not self._committed:
            self._answer(reply, self._head.path)
        elif self._can_end_grpc():
            self._end_grpc(reply, detail)
            self._finish(Cause.DENIED, reply, reply.grpc_code)
        else:
            self._down.abort(Cause.DENIED)
            self._finish(Cause.DENIED, reply)

    def _hold(self, hold: Hold, since: float) -> None:
        left = since + hold.for_s - self._carrier.now()
        if left <= 0:
            self._answer(hold.then, self._carrier.explain(hold.key))
            return

        def wake() -> None:
            self._cancel_waits()
            if not self._done:
                self._decide(since)

        def expire() -> None:
            self._cancel_waits()
            if not self._done:
                self._answer(hold.then, self._carrier.explain(hold.key))

        self._cancels.append(self._carrier.clusters.wait(hold.key, wake))
        self._cancels.append(self._carrier.later(left, expire).cancel)

    def _carry(self, kept: Kept, plan: Plan) -> None:
        self._kept = kept
        size = max(self._raw.length or 0, self._body.size)  # a held call may have its body already
        if plan.body_bytes is not None and size > plan.body_bytes:
            self._answer(plan.local_replies[Cause.TOO_LARGE], f"{size} bytes, the limit is {plan.body_bytes}")
            return
        self._limit(plan.total_s)
        if kept.edits[0].grpc_web and (left := self._head.get(b"grpc-timeout")) is not None:
            self._limit(parse_grpc_timeout(left))
        self._body.keep_bytes = plan.replay_bytes
        self._retrying = Retrying(plan.retries)
        self._route = _draw_route(plan.routes, self._carrier)  # once: attempts stay on one side of a split
        if plan.gates:
            self._gates = Passage(self._carrier, plan.gates, self._let_through)
            self._gates.go_on()
        else:
            self._attempt(plan)

    def _let_through(self, refused: Refused | None) -> None:
        if refused is None:
            self._attempt(self._plan)
        else:
            self._answer(self._plan.local_replies[refused.cause], refused.detail)

    def _limit(self, limit_s: float | None) -> None:
        if limit_s is None:
            return
        at = self._carrier.now() + limit_s
        if self._deadline_at is None or at < self._deadline_at:
            self._deadline_at = at
            self._timers.append(self._carrier.later(max(limit_s, 0.0), self._deadline_passed))

    def _deadline_passed(self) -> None:
        if self._done:
            return
        self._end_attempt(Cause.TIMEOUT, "the call's time is over", abort=True)
        self._fail_for_good(Cause.TIMEOUT, "the call's deadline passed")

    # --- attempts --------------------------------------------------------------------------------------------------------

    @property
    def _plan(self) -> Plan:
        assert self._kept is not None
        assert isinstance(self._kept.decision, Plan)
        return self._kept.decision

    def _attempt(self, plan: Plan) -> None:
        self._cancel_waits()
        self._attempts.append(Attempt("", time.time_ns()))
        if plan.attempt_s is not None:
            self._timers.append(self._carrier.later(plan.attempt_s, self._attempt_timer(len(self._attempts))))
        gates = plan.routes[self._route].gates
        if gates:
            self._gates_of_attempt = Passage(self._carrier, gates, self._attempt_let_through)
            self._gates_of_attempt.go_on()
        else:
            self._choose(plan)

    def _attempt_let_through(self, refused: Refused | None) -> None:
        if refused is None:
            self._choose(self._plan)
        else:
            self._end_attempt(refused.cause, refused.detail, abort=False)
            self._failed(refused.cause, refused.detail)

    def _choose(self, plan: Plan) -> None:
        route = plan.routes[self._route]
        state = self._carrier.clusters.get(route.cluster)
        load = state.pick(self._tried, self._carrier.now(), self._carrier.rng) if state is not None else None
        if state is None or load is None:
            self._end_attempt(Cause.NO_ENDPOINT, "", abort=False)
            self._failed(Cause.NO_ENDPOINT, self._carrier.explain(route.cluster))
            return
        self._load = load
        load.in_flight += 1
        self._tried.add(load.address)
        self._attempts[-1].endpoint = load.address
        cluster = state.cluster
        self._is_peer, self._is_mesh = cluster.wire == "postern", cluster.tls is not None
        self._refused_as = None
        origin = Origin(cluster.key, load.address, cluster.wire, cluster.tls, route.expect, plan.connect_s)
        if self._is_peer:
            prove_another(self._carrier, state, origin)
        connection = self._carrier.pool.take(origin)
        if connection is not None:
            self._send(connection)
            return
        self._cancels.append(self._carrier.pool.wait(origin, Waiter(self._connected, self._not_connected)))
        if not load.proven and state.untried(self._tried):
            late = f"no connection within {_PROOF_S:g} s"
            timer = self._carrier.later(_PROOF_S, lambda: self._not_connected(Cause.CONNECT, late))
            self._cancels.append(timer.cancel)

    def _attempt_timer(self, number: int) -> Callable[[], None]:
        def fire() -> None:
            if self._committed and self._raw.protocol == "websocket":
                return  # an accepted tunnel has no end to wait for
            if not self._done and len(self._attempts) == number and not self._attempts[-1].ended_ns:
                limit = f"no complete answer within {self._plan.attempt_s:g} s"
                self._end_attempt(Cause.TIMEOUT, limit, abort=True)
                if self._committed:
                    self._fail_for_good(Cause.TIMEOUT, limit)
                else:
                    self._failed(Cause.TIMEOUT, limit)

        return fire

    def _connected(self, connection: UpstreamConnection) -> None:
        self._cancel_waits()
        if self._load is not None:
            self._load.proven = True
        self._send(connection)

    def _not_connected(self, cause: Cause, detail: str) -> None:
        self._cancel_waits()
        if self._load is not None:
            lost(self._load, cause, self._carrier.now(), is_mesh=self._is_peer and self._is_mesh)
        self._end_attempt(cause, detail, abort=False)
        self._failed(cause, detail)

    def _send(self, connection: UpstreamConnection) -> None:
        self._cancels.clear()
        plan = self._plan
        if self._is_peer and connection.alpn == "h2" and self._is_mesh:
            self._is_peer = False  # a daprd
            if self._raw.protocol != "grpc":
                detail = "the peer chose ALPN h2, as daprd does: only gRPC can be carried to it"
                self._end_attempt(Cause.UNSUPPORTED, detail, abort=False)
                self._fail_for_good(Cause.UNSUPPORTED, detail)
                return
        assert self._kept is not None
        left = None if self._deadline_at is None else self._deadline_at - self._carrier.now()
        if plan.attempt_s is not None:
            left = plan.attempt_s if left is None else min(left, plan.attempt_s)
        raw = edit_request(self._kept.edits[self._route], self._raw, self._head, self._span, left)
        self._body.restart()
        self._sent_at = self._carrier.now()
        sent_as = content_type(self._raw) if self._kept.edits[self._route].grpc_web else b""
        self._web = WebCall(self, sent_as, connection) if sent_as else None
        self._call = call = self._web or connection.open(self)
        end = self._body.is_empty
        call.start(raw, end=end)
        if not end and self._call is call:
            self._send_body()

    def _send_body(self) -> None:
        call, body = self._call, self._body
        while call is not None and self._call is call and body.give(call):
            pass  # a call may be lost in the middle of what is held
        if call is not None and self._call is call and body.ended:
            self._finish_request(call)

    def _finish_request(self, call: UpstreamCall) -> None:
        assert self._kept is not None
        call.finish(edit_trailers(self._kept.edits[self._route], self._body.trailers))

    # --- request events ----------------------------------------------------------------------------------------------------

    def request_data(self, data: bytes) -> None:
        """Some of the request body: keep it while another attempt may need it, and pass it on."""
        if self._done:
            self._down.ack(len(data))
            return
        limit = self._plan.body_bytes if self._kept is not None else None
        if limit is not None and self._body.size + len(data) > limit:
            self._end_attempt(Cause.TOO_LARGE, "", abort=True)
            self._fail_for_good(Cause.TOO_LARGE, f"more than {limit} bytes")
            return
        self._body.arrive(data, self._call, committed=self._committed)

    def request_end(self, trailers: Headers) -> None:
        """The request is complete."""
        if self._body.ended:
            return
        self._body.ended = True
        self._body.trailers = trailers
        if self._call is not None and not self._done:
            self._finish_request(self._call)

    def request_gone(self, detail: str) -> None:
        """The caller left: the callee is told at once."""
        if self._done:
            return
        self._end_attempt(Cause.CALLER_LEFT, detail, abort=True)
        self._finish(Cause.CALLER_LEFT)

    def check_progress(self, now: float) -> None:
        """Called every second or so: cut off a caller that neither sends what it announced nor reads what it asked for.

        Bodies of unknown length may pause as they like, and so may those who read gRPC or a tunnel: that is how streams are.
        """
        body, limits = self._body, self._carrier.limits
        is_sender = self._raw.framing == "length" and not body.ended and body.has_left_so_far
        is_reader = self._down_bytes > self._down_drained and self._raw.protocol in {"http1", "http2"}
        moved = body.size + self._down_drained
        at, before = self._moved
        if not (is_sender or is_reader) or moved - before >= limits.stall_bytes:
            self._moved = (now, moved)
        elif now - at > limits.stall_s and not self._done:
            self._carrier.observer.refused_frames("slow-reader" if is_reader else "slow-body")
            self._end_attempt(Cause.CALLER_LEFT, f"the caller stalled for {limits.stall_s:g} s", abort=True)
            self._down.abort(Cause.CALLER_LEFT)
            self._finish(Cause.CALLER_LEFT)

    def response_drained(self, count: int) -> None:
        """The caller took bytes: the callee may send more."""
        self._down_drained += count
        if self._call is not None:
            self._call.ack(count)

    # --- response events ---------------------------------------------------------------------------------------------------

    def request_drained(self, count: int) -> None:
        """Bytes left for the callee: the caller may send more (replayed bytes were acknowledged before)."""
        fresh = self._body.drain(count)
        if fresh and not self._done:
            self._down.ack(fresh)

    def response_inform(self, status: int, headers: Headers) -> None:
        """A 1xx answer goes through."""
        if not self._committed and not self._done:
            self._down.inform(status, tuple(h for h in headers if h[0] not in HOP_BY_HOP))

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """The callee's answer: pass it on, or try again where the Plan says that this one is a failure."""
        if self._done:
            return
        self._response_head_ns = time.time_ns()
        attempt = self._attempts[-1]
        attempt.head_ns = self._response_head_ns
        attempt.status = status
        grpc = self._raw.protocol == "grpc"
        may_be_peers = status >= 400 or (grpc and end) or bool(content_type(self._raw))
        if self._is_peer and may_be_peers and self._kept_from_app(headers):
            return
        if self._load is not None and self._refused_as is None:
            self._load.observe(self._carrier.now() - self._sent_at, self._carrier.now())
        if grpc and not end and self._body.is_whole and self._retrying.may_read_grpc:
            self._held_head = (status, headers)
            return
        assert self._kept is not None
        if self._kept.edits[self._route].http_only and answers.is_grpc(headers):
            detail = f"it answered in gRPC, with HTTP {status}"
            self._end_attempt(Cause.UNSUPPORTED, detail, abort=True)
            self._fail_for_good(Cause.UNSUPPORTED, detail)
            return
        code = answers.grpc_code(headers) if grpc and end else None
        if self._refused_by_status(status, code):
            return
        self._commit(status, headers, end=end)
        if end:
            attempt.grpc_code = code
            self._complete()

    def _kept_from_app(self, headers: Headers) -> bool:
        """Whether another endpoint is asked now, as the peer's proxy says that its app never saw the call."""
        word = next((data for name, data in headers if name == errors.HEADER), b"")
        self._attempts[-1].said = cause = _SAID.get(word)
        if cause is None or cause not in _KEPT_FROM_APP:
            return False
        self._refused_as = cause
        if self._load is not None and cause is Cause.REFUSED:
            self._load.yield_way()
        elif self._load is not None:
            self._load.eject(self._carrier.now())
        if not self._may_try_another():
            return False  # its answer says more than ours could
        self._end_attempt(cause, "", abort=True)
        self._attempt(self._plan)
        return True

    def _refused_by_status(self, status: int, code: int | None) -> bool:
        """Whether this answer is thrown away for another attempt, now under way."""
        delay = self._next_delay(Cause.STATUS, status, code)
        if delay is None:
            return False
        self._attempts[-1].grpc_code = code
        self._end_attempt(Cause.STATUS, "", abort=True)
        self._pause(delay)
        return True

    def _commit(self, status: int, headers: Headers, *, end: bool) -> None:
        assert self._kept is not None
        self._committed = True
        self._status = status
        self._body.committed()
        edits = self._kept.reply_edits
        if edits is not None:
            passed = tuple(edit_answer(edits, headers, self._raw, self._span))
        else:
            passed = tuple(h for h in headers if h[0] not in HOP_BY_HOP)
        mark = _MARKS.get(status)  # from one HTTP/1.1 end to the other
        if mark is not None:
            passed = (*(h for h in passed if h[0] != mark), *(h for h in headers if h[0] == mark))
        self._down.respond(status, passed if self._raw.protocol == "grpc" else answers.dated(passed), end=end)

    def _release_held(self) -> None:
        if self._held_head is not None:
            (status, headers), self._held_head = self._held_head, None
            self._commit(status, headers, end=False)

    def response_data(self, data: bytes) -> None:
        """Some of the answer's body."""
        if self._done:
            return
        self._release_held()
        self._down_bytes += len(data)
        self._down.send(data)

    def response_end(self, trailers: Headers) -> None:
        """The answer is complete."""
        if self._done:
            return
        if self._raw.protocol == "grpc":
            code = answers.grpc_code(trailers)
            if self._held_head is not None and self._refused_by_status(self._held_head[0], code):
                return
            self._attempts[-1].grpc_code = code
        self._release_held()
        assert self._kept is not None
        self._down.finish(edit_trailers(self._kept.reply_edits, trailers))
        self._complete()

    def response_lost(self, cause: Cause, detail: str) -> None:
        """The callee's end broke."""
        if self._done:
            return
        self._call = None
        if cause is Cause.REFUSED and self._load is not None:
            self._load.yield_way()
        self._end_attempt(cause, detail, abort=False)
        if self._committed:
            self._fail_for_good(cause, detail)
        else:
            self._failed(cause, detail)

    # --- failing and ending ------------------------------------------------------------------------------------------------

    def _failed(self, cause: Cause, detail: str) -> None:
        """An attempt came to nothing before an answer: another endpoint at once, another attempt later, or the answer for the cause."""
        if cause in _IMMEDIATE and self._may_try_another():
            self._attempt(self._plan)
            return
        delay = self._next_delay(cause)
        if delay is None:
            self._fail_for_good(cause, detail)
        else:
            self._pause(delay)

    def _may_try_another(self) -> bool:
        """Whether an endpoint is left for a call that surely nobody processed."""
        state = self._carrier.clusters.get(self._plan.routes[self._route].cluster)
        return (
            self._body.is_whole
            and state is not None
            and state.untried(self._tried)
            and len(self._tried) <= _IMMEDIATE_TRIES
        )

    def _next_delay(self, cause: Cause, status: int = 0, code: int | None = None) -> float | None:
        if not self._body.is_whole:
            return None
        elapsed_s = (time.time_ns() - self._started_ns) / 1e9
        delay = self._retrying.next_delay(len(self._attempts), elapsed_s, cause, status, code)
        if delay is None or (
            self._deadline_at is not None and self._carrier.now() + delay >= self._deadline_at
        ):
            return None
        return delay

    def _pause(self, delay_s: float) -> None:
        def again() -> None:
            if not self._done:
                self._attempt(self._plan)

        if delay_s <= 0:
            again()
        else:
            self._cancels.append(self._carrier.later(delay_s, again).cancel)

    def _fail_for_good(self, cause: Cause, detail: str) -> None:
        if self._done:
            return
        if self._committed and cause is Cause.TIMEOUT and self._can_end_grpc():
            reply = self._plan.local_replies[cause]
            self._end_grpc(reply, detail)
            self._finish(cause, None, reply.grpc_code)
        elif self._committed:
            self._down.abort(cause)
            self._finish(cause)
        elif self._kept is None:
            self._answer(answers.timed_out(self._listener.name), detail)
        else:
            self._answer(self._plan.local_replies[cause], detail)

    def _end_grpc(self, reply: Reply, detail: str) -> None:
        trailers = answers.grpc_trailers(reply, detail, self._span)
        if self._web is not None:
            self._down.send(trailer_frame(trailers, content_type(self._raw)))
            trailers = ()
        self._down.finish(trailers)

    def _can_end_grpc(self) -> bool:
        """Whether a begun gRPC answer can still end with a status: not behind bytes that the caller may never read."""
        is_grpc = self._raw.protocol == "grpc" or (self._web is not None and self._web.is_between_messages)
        return is_grpc and self._down_drained == self._down_bytes

    def _end_attempt(self, cause: Cause | None, detail: str, *, abort: bool) -> None:
        """Close the books on the current attempt; one that still waits for its connection must not be sent later."""
        self._cancel_waits()
        self._held_head = None
        call, self._call = self._call, None
        if call is not None and abort:
            call.abort()
        load, self._load = self._load, None
        if self._attempts and not self._attempts[-1].ended_ns:
            attempt = self._attempts[-1]
            attempt.ended_ns = time.time_ns()
            attempt.cause = cause
            attempt.detail = detail
        if load is not None:
            load.in_flight -= 1
        gates, self._gates_of_attempt = self._gates_of_attempt, None
        if gates is not None:
            attempt = self._attempts[-1]
            gates.leave(_outcome(attempt.cause, attempt.status, attempt.grpc_code))

    def _complete(self) -> None:
        call = self._call
        if self._web is not None:
            self._attempts[-1].grpc_code = self._web.grpc_code
        self._end_attempt(self._refused_as, "", abort=False)
        if call is not None and not self._body.has_left:
            call.abort()  # a full answer before the end of the request: the callee wants no more of it
        self._finish(None)

    def _answer(self, reply: Reply, detail: str) -> None:
        """An answer of our own, HTTP or gRPC by what was asked."""
        self._status = reply.status
        code = answers.send(
            self._down,
            reply,
            detail,
            self._span,
            grpc=self._raw.protocol == "grpc",
            web=content_type(self._raw),
            head=self._head.method == "HEAD",
        )
        self._finish(reply.cause, reply, code)

    def _finish(self, cause: Cause | None, reply: Reply | None = None, grpc_code: int | None = None) -> None:
        if self._done:
            return
        self._done = True
        self._cancel_waits()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._body.let_go()
        if grpc_code is None and self._attempts and cause is None:
            grpc_code = self._attempts[-1].grpc_code
        if self._gates is not None:
            self._gates.leave(_outcome(cause, self._status, grpc_code))
        decision = reply or (self._kept.decision if self._kept is not None else None)
        self._carrier.finished(
            self,
            Outcome(
                head=self._head,
                labels=decision.labels if decision is not None else answers.unlabelled(self._listener.name),
                trace=self._span,
                started_ns=self._started_ns,
                head_ns=self._response_head_ns,
                ended_ns=time.time_ns(),
                status=self._status,
                grpc_code=grpc_code,
                cause=cause,
                attempts=self._attempts,
                up_bytes=self._body.size,
                down_bytes=self._down_bytes,
            ),
        )

    def _cancel_waits(self) -> None:
        cancels, self._cancels = self._cancels, []
        for cancel in cancels:
            cancel()

    def cut(self) -> None:
        """The engine stops: end the call visibly."""
        if not self._done:
            self._end_attempt(Cause.DRAINING, "the proxy is shutting down", abort=True)
            self._down.abort(Cause.DRAINING)
            self._finish(Cause.DRAINING)


def _draw_route(routes: Iterable[Route], carrier: "Carrier") -> int:
    weights = [route.weight for route in routes]
    if len(weights) == 1:
        return 0
    return int(carrier.rng.choices(range(len(weights)), weights)[0])


def _outcome(cause: Cause | None, status: int, code: int | None) -> Cause | None:
    """As gates hear it: an app's answer that is a failure counts, whether or not it was passed on."""
    return Cause.STATUS if cause is None and is_failure(status, code) else cause
