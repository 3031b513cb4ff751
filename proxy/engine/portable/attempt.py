"""One attempt of a call: the gates before it, an endpoint, a connection, the request up and the answer down.

The exchange that begins an attempt owns what outlives it (the request's body, the answer so far, whether to retry) and is told
how it ended; several may be under way at once. An attempt that is over ignores whatever its upstream still says.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy import errors
from proxy.contract.gates import FaultGate
from proxy.contract.head import Headers
from proxy.contract.outcome import Attempt
from proxy.contract.plan import Cause
from proxy.engine.portable.balance import Load
from proxy.engine.portable.faults import CAUSES, HEADER, ending, harmed, injected, names_of
from proxy.engine.portable.gates import Passage
from proxy.engine.portable.grpc_web_call import WebCall
from proxy.engine.portable.outliers import has_failed
from proxy.engine.portable.passing import Begun, Refused, Told
from proxy.engine.portable.pool import Origin, Waiter
from proxy.engine.portable.proving import lost, prove_another
from proxy.engine.portable.request_body import BodyCursor
from proxy.engine.portable.retrying import Failure, heard_by_gates, is_failure
from proxy.wire import answers
from proxy.wire.edits import (
    HOP_BY_HOP,
    Compiled,
    edit_request,
    edit_trailers,
    with_previous_attempts,
)
from proxy.wire.grpc_web import content_type
from proxy.wire.pushback import read_pushback
from proxy.wire.streams import UpstreamCall, UpstreamConnection

if TYPE_CHECKING:
    from proxy.engine.portable.exchange import Exchange

_PROOF_S = 1.0  # for an endpoint that was only announced to show who it is, where another one is left
# What a peer's proxy says when it kept a call from an app: it failed as an endpoint, however fast the answer.
_SAID = {cause.value.encode(): cause for cause in Cause}
_DENIED = Cause.DENIED.value.encode()
_NO_ROOM = frozenset({Cause.SHED, Cause.RATE, Cause.AUTHORIZER})  # its app is well, and takes others
_KEPT_FROM_APP = frozenset({Cause.APP_DOWN, Cause.APP_UNHEALTHY, Cause.MISDIRECTED, Cause.REFUSED})


class UpstreamAttempt:
    """Hears the events of one upstream call. Mutable state: the endpoint chosen, what is waited for, and the answer's head while held."""

    __slots__ = (
        "_begun",
        "_cancels",
        "_cursor",
        "_exchange",
        "_faults",
        "_gates",
        "_held_head",
        "_is_mesh",
        "_is_over",
        "_is_peer",
        "_load",
        "_refused_as",
        "_route",
        "_sent_at",
        "_timer",
        "_waits_since",
        "_was_kept",
        "record",
        "upstream",
        "web",
    )

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        self.record = Attempt("", time.time_ns())
        self.upstream: UpstreamCall | None = None
        self.web: WebCall | None = None  # where gRPC-Web is made gRPC
        self._cursor = BodyCursor(exchange.body)
        self._is_over = False
        self._route = exchange.route
        self._load: Load | None = None
        self._gates: Passage | None = None
        self._faults: list[FaultGate] = []
        self._cancels: list[Callable[[], None]] = []  # of what is waited for until there is a connection
        self._timer: Callable[[], None] | None = None
        self._held_head: tuple[int, Headers] | None = None
        self._is_peer = self._is_mesh = False  # the other end is a postern proxy, reached over mutual TLS
        self._refused_as: Cause | None = None
        self._was_kept = True  # the request could be sent again until the answer began
        self._sent_at = 0.0
        self._waits_since = 0  # at gates
        self._begun: Begun = "never"

    @property
    def _edits(self) -> Compiled:
        return self._exchange.kept_plan.edits[self._route]

    # --- the way up --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Pass the gates, choose an endpoint, connect and send."""
        exchange = self._exchange
        exchange.told = None
        limit_s = exchange.plan.attempt_s
        if limit_s is not None:
            self._timer = exchange.carrier.later(limit_s, self._expire, limit_s).cancel
        gates = exchange.plan.routes[exchange.route].gates
        if gates:
            self._waits_since = time.perf_counter_ns()
            is_beside = exchange.under_way.count > 1
            who = exchange.head.who
            self._gates = Passage(exchange.carrier, gates, who, self._let_through, at_once=is_beside)
            self._gates.go_on()
        else:
            self._choose()

    def _expire(self, limit_s: float) -> None:
        if not (
            self._exchange.is_committed and self._exchange.raw.protocol == "websocket"
        ):  # tunnels have no end
            self._fail(Cause.TIMEOUT, f"no complete answer within {limit_s:g} s")

    def _let_through(self, refused: Refused | None) -> None:
        self._waited()
        if refused is not None:
            self._exchange.told = refused.told
            self._fail(refused.cause, refused.detail)
            return
        self._note_faults()
        self._choose()

    def _note_faults(self) -> None:
        """Those of the gates so far: the record says so, and whoever gets an answer of ours in the callee's place."""
        self._faults = self._gates.faults if self._gates is not None else []
        if self._faults:
            self.record.fault = names_of(self._faults)
            self._exchange.told = Told(self.fault_headers, None)

    @property
    def fault_headers(self) -> Headers:
        """What an answer says of the faults that were injected."""
        return ((HEADER, self.record.fault.encode()),) if self._faults else ()

    def _end_harmed(self, fault: FaultGate) -> None:
        """As the endpoint's end would."""
        if fault.kind != "unavailable":
            self._sent_at, self.record.sent_ns = self._exchange.carrier.now(), time.time_ns()
        if fault.kind == "abort":
            status, headers = injected(fault, grpc=self._exchange.raw.protocol == "grpc")
            self.response_head(status, headers, end=True)
        else:
            self._fail(CAUSES[fault.kind], f"injected by the fault {fault.name}")

    def _choose(self) -> None:
        exchange, carrier = self._exchange, self._exchange.carrier
        route = exchange.plan.routes[self._route]
        state = carrier.clusters.get(route.cluster)
        now, headers = carrier.now(), exchange.raw.headers
        load = state.pick(exchange.tried, now, carrier.rng, headers) if state is not None else None
        if state is None or load is None:
            self._fail(Cause.NO_ENDPOINT, "")
            return
        self._load = load
        load.in_flight += 1
        if self._route == exchange.route:
            exchange.tried.add(load.address)
            self.record.endpoint = load.address
        fault = ending(self._faults)
        if fault is not None:
            self._end_harmed(fault)
            return
        cluster = state.cluster
        self._is_peer, self._is_mesh = cluster.wire == "postern", cluster.tls is not None
        connect_s = exchange.plan.connect_s
        origin = Origin(
            cluster.key,
            load.address,
            cluster.wire,
            cluster.tls,
            route.expect,
            connect_s,
            cluster.who,
            cluster.via,
            # A proxy that is asked for a whole URL drops Upgrade (RFC 6455 §4.1).
            is_tunnel=cluster.via is not None and exchange.raw.protocol == "websocket",
        )
        if self._is_peer:
            prove_another(carrier, state, origin)
        connection = carrier.pool.take(origin)
        if connection is not None:
            self._send(connection)
            return
        self._cancels.append(carrier.pool.wait(origin, Waiter(self._connected, self._not_connected)))
        if not load.proven and state.untried(exchange.tried):
            late = f"no connection within {_PROOF_S:g} s"
            self._cancels.append(carrier.later(_PROOF_S, self._not_connected, Cause.CONNECT, late).cancel)

    def _waited(self) -> None:
        if self._waits_since:
            self.record.queue_ns = time.perf_counter_ns() - self._waits_since
            self._waits_since = 0

    def _connected(self, connection: UpstreamConnection) -> None:
        self._cancel_waits()
        if self._load is not None:
            self._load.proven = True
        self._send(connection)

    def _not_connected(self, cause: Cause, detail: str) -> None:
        self._cancel_waits()
        if self._load is not None:
            lost(self._load, cause, self._exchange.carrier.now(), is_mesh=self._is_peer and self._is_mesh)
        self._fail(cause, detail)

    def _send(self, connection: UpstreamConnection) -> None:
        self._cancels.clear()
        exchange = self._exchange
        raw = exchange.raw
        if self._is_peer and self._is_daprd(connection):
            self._is_peer = False
            if raw.protocol != "grpc":
                self._go_by_daprd()
                return
        edited = edit_request(self._edits, raw, exchange.head, exchange.span, exchange.left_s())
        if edited.protocol == "grpc" and exchange.under_way.begun > 1:
            edited = with_previous_attempts(edited, exchange.under_way.processed_before(self))
        self._sent_at = exchange.carrier.now()
        self.record.sent_ns = time.time_ns()
        sent_as = content_type(raw) if self._edits.grpc_web else b""
        events = harmed(self, self._faults, exchange.carrier, self._fail) if self._faults else None
        if events is not None:
            self._cancels.append(events.stop)
        self.web = WebCall(events or self, sent_as, connection) if sent_as else None
        self.upstream = upstream = self.web or connection.open(events or self)
        end = exchange.body.is_empty
        upstream.start(edited, end=end)
        if not end:
            self.give_body()
            if exchange.body.ended:
                self.finish_request()

    def _is_daprd(self, connection: UpstreamConnection) -> bool:
        """Of a proxy: a daprd chooses ALPN h2, and, where there is no TLS, offers no extended CONNECT, as ours do."""
        return connection.alpn == "h2" and (self._is_mesh or not connection.has_extended_connect)

    def _go_by_daprd(self) -> None:
        """Take the route for calls that the peer can't be sent as they are."""
        route = self._exchange.plan.by_daprd
        if route is None or self._load is None:
            detail = (
                "the peer is a daprd, or a proxy like it: only gRPC and plain HTTP calls can be carried to it"
            )
            self._fail_for_good(Cause.UNSUPPORTED, detail)
            return
        self._load.in_flight -= 1
        self._load, self._route = None, route
        self._exchange.under_way.is_by_daprd = True
        self._choose()

    def give_body(self) -> None:
        """Send on what is held of the request."""
        upstream, exchange = self.upstream, self._exchange
        if upstream is None:
            return
        while self.upstream is upstream and self._cursor.give(upstream, keep=not exchange.is_committed):
            pass  # a call may be lost in the middle of what is held
        if self.upstream is upstream and not exchange.body.is_whole:
            exchange.under_way.keep(self)  # nobody else can send all of it

    def finish_request(self) -> None:
        """The request is complete: so is what is sent of it."""
        if self.upstream is not None:
            self.upstream.finish(edit_trailers(self._edits, self._exchange.body.trailers))

    # --- what the upstream says --------------------------------------------------------------------------------------------

    def request_drained(self, count: int) -> None:
        """Bytes left for the callee: the caller may send more."""
        self._exchange.request_drained(self._cursor.drain(count))

    def response_inform(self, status: int, headers: Headers) -> None:
        """A 1xx answer goes through, unless another attempt may be the one."""
        if not self._is_over and self._exchange.under_way.is_the_one(self):
            self._exchange.inform(status, tuple(h for h in headers if h[0] not in HOP_BY_HOP))

    def response_head(self, status: int, headers: Headers, *, end: bool) -> None:
        """The callee's answer: pass it on, or retry if the Plan says that it is a failure."""
        if self._is_over:
            return
        exchange, record = self._exchange, self.record
        exchange.head_ns = record.head_ns = time.time_ns()
        record.status = status
        self._note_begun()
        is_grpc = exchange.raw.protocol == "grpc"
        may_be_peers = status >= 400 or (is_grpc and end) or bool(content_type(exchange.raw))
        if self._is_peer and may_be_peers and self._kept_from_app(headers):
            return
        if self._route == exchange.plan.by_daprd and dict(headers).get(errors.HEADER) == _DENIED:
            record.said = Cause.DENIED  # what our own translator has of the daprd
        said = record.said
        if self._load is not None and self._refused_as is None and said is not Cause.DENIED:
            now = exchange.carrier.now()
            self._load.observe(now - self._sent_at, now)
            if said in _NO_ROOM:
                self._load.penalize(0.0, now)
        if is_grpc and not end and exchange.may_retry_grpc:
            self._held_head = (status, headers)
            return
        if self._edits.http_only and answers.is_grpc(headers):
            self._fail_for_good(Cause.UNSUPPORTED, f"it answered in gRPC, with HTTP {status}")
            return
        code = answers.grpc_code(headers) if is_grpc and end else None
        if self._refused_by_status(status, code, headers):
            return
        self._commit(status, headers, end=end)
        if end:
            record.grpc_code = code
            self._complete()

    def _note_begun(self) -> None:
        exchange, now = self._exchange, self._exchange.carrier.now()
        upload_s = max(0.0, exchange.body.ended_at - self._sent_at)
        self._begun = now - upload_s if exchange.body.ended else "streaming"

    def _kept_from_app(self, headers: Headers) -> bool:
        """Whether another endpoint is asked now, as the peer's proxy says that its app never saw the call."""
        word = next((data for name, data in headers if name == errors.HEADER), b"")
        self.record.said = cause = _SAID.get(word)
        if cause is Cause.TIMEOUT:  # it had no more time than we: its clock was first
            self._fail(cause, "the callee's proxy ended it as its time was over")
            return True
        if cause is None or cause not in _KEPT_FROM_APP:
            return False
        self._refused_as = cause
        if self._load is not None and cause is Cause.REFUSED:
            self._load.yield_way()
        elif self._load is not None:
            self._load.eject(self._exchange.carrier.now())
        if self._exchange.under_way.count == 1 and not self._exchange.under_way.may_try_another(
            self._exchange
        ):
            return False  # its answer says more than ours could
        self.end(cause, "", abort=True)
        self._exchange.retry(0.0)
        return True

    def _refused_by_status(self, status: int, code: int | None, fields: Headers) -> bool:
        """Whether this answer is thrown away for another attempt, now under way. fields: those that came with its status."""
        grpc = self._exchange.raw.protocol == "grpc"
        delay_s = None
        if is_failure(status, code):
            asked = read_pushback(fields, grpc=grpc, status=status, now_s=time.time())
            cause = (
                Cause.DENIED
                if self._exchange.under_way.is_denial(self.record, self._exchange.plan)
                else Cause.STATUS
            )
            delay_s = self._exchange.next_delay(Failure(cause, status, code, asked))
        if delay_s is None:
            return False
        self.record.grpc_code = code
        self.end(Cause.STATUS, "", abort=True)
        self._exchange.retry(delay_s)
        return True

    def _release_held(self) -> None:
        if self._held_head is not None:
            (status, headers), self._held_head = self._held_head, None
            self._commit(status, headers, end=False)

    def _commit(self, status: int, headers: Headers, *, end: bool) -> None:
        self._was_kept = self._exchange.body.is_whole
        self._cursor.committed()
        self._exchange.commit(self, status, headers, end=end)

    def response_data(self, data: bytes) -> None:
        """Some of the answer's body."""
        if not self._is_over:
            self._release_held()
            self._exchange.deliver(data)

    def response_end(self, trailers: Headers) -> None:
        """The answer is complete."""
        if self._is_over:
            return
        if self._exchange.raw.protocol == "grpc":
            code = answers.grpc_code(trailers)
            if self._held_head is None:
                self._exchange.note_late(code, was_kept=self._was_kept)
            elif self._refused_by_status(self._held_head[0], code, trailers):
                return
            self.record.grpc_code = code
        self._release_held()
        self._exchange.end_answer(trailers)
        self._complete()

    def response_lost(self, cause: Cause, detail: str) -> None:
        """The callee's end broke."""
        if self._is_over:
            return
        self.upstream = None
        if cause is Cause.REFUSED and self._load is not None:
            self._load.yield_way()
        self._fail(cause, detail)

    # --- its end -----------------------------------------------------------------------------------------------------------

    def _fail(self, cause: Cause, detail: str) -> None:
        if self._is_over:
            return
        self.end(cause, detail, abort=True)
        self._exchange.attempt_failed(cause, detail)

    def _fail_for_good(self, cause: Cause, detail: str) -> None:
        self.end(cause, detail, abort=True)
        self._exchange.attempt_failed(cause, detail, for_good=True)

    def _complete(self) -> None:
        upstream = self.upstream
        if self.web is not None:
            self.record.grpc_code = self.web.grpc_code
        self.end(self._refused_as, "", abort=False)
        if upstream is not None and not self._cursor.has_left:
            upstream.abort()  # a full answer before the end of the request: the callee wants no more of it
        self._exchange.complete()

    def end(self, cause: Cause | None, detail: str, *, abort: bool) -> None:
        """Settle it, once; an attempt that still waits for its connection must not be sent later."""
        if self._is_over:
            return
        self._is_over = True
        if not self._faults:
            self._note_faults()  # of one that did not get by its delay
        self._waited()
        self._exchange.under_way.forget(self)
        self._cancel_waits()
        if self._timer is not None:
            self._timer()
        self._held_head = None
        upstream, self.upstream = self.upstream, None
        if upstream is not None and abort:
            upstream.abort()
        record = self.record
        record.ended_ns = time.time_ns()
        record.cause, record.detail = cause, detail
        if self._load is not None:
            self._load.in_flight -= 1
            self._judge(self._load)
        gates, self._gates = self._gates, None
        self._exchange.under_way.note_begun(self, self._begun)
        if gates is not None:
            gates.leave(heard_by_gates(cause, record.status, record.grpc_code), self._begun)

    def _judge(self, load: Load) -> None:
        """By how it ended: who answers badly gets fewer calls, and is left out."""
        exchange, carrier, record = self._exchange, self._exchange.carrier, self.record
        failed = has_failed(record, is_tunnel=exchange.raw.protocol == "websocket")
        if failed:
            load.penalize((record.ended_ns - record.sent_ns) / 1e9, carrier.now())
        state = carrier.clusters.get(exchange.plan.routes[self._route].cluster)
        if state is not None and state.cluster.outliers is not None:
            for turn in state.heard(load, failed, carrier.now(), carrier.rng):
                carrier.observer.endpoint_turned(turn)

    def _cancel_waits(self) -> None:
        cancels, self._cancels = self._cancels, []
        for cancel in cancels:
            cancel()
