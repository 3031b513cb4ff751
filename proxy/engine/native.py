"""The native engine's side in Python: answers its questions, hands on its reports, pushes what the control plane says.

Runs on the loop. The engine's own thread writes questions and reports into queues and rings a bell (a descriptor that the loop
watches), so it never waits for the interpreter; a head that no kept Plan covers waits alone until the loop has decided.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import asdict

from proxy import errors
from proxy.engine import _native
from proxy.engine._native import Question
from proxy.engine.base import (
    Cluster,
    EngineStats,
    Limits,
    ListenerSpec,
    Observer,
    Span,
    TlsIdentity,
    Tracing,
)
from proxy.plan import (
    DETAIL,
    Again,
    Asking,
    Attempt,
    Cause,
    Edits,
    Facet,
    Header,
    Hold,
    Labels,
    Outcome,
    Plan,
    Reply,
    RequestHead,
    Table,
    Tables,
)

if TYPE_CHECKING:
    from proxy.engine._native import (
        AgainParts,
        AttemptParts,
        EditParts,
        OutcomeParts,
        PlanParts,
        ReadParts,
        ReplyParts,
    )

Explain = Callable[[str], str]
REPORT_S = 0.1  # how long a report may lie; 0: not at all, for tests
_BATCH = 512  # reports handed on in one piece: the loop has other work
_PAUSES = 16  # of a retry rule, drawn at once
_MAX_CALLS_RETRYING = 4_096
_HEAD_FIELDS = (
    "listener",
    "protocol",
    "framing",
    "method",
    "authority",
    "target",
    "path",
    "query",
    "headers",
    "peer",
    "peer_address",
    "length",
    "exact",
    "form",
)


class NativeEngine:
    """See Engine. Mutable state: decisions and spans by the numbers that the engine knows them by, and classes of paths by table."""

    name = "native"

    def __init__(
        self,
        limits: Limits,
        observer: Observer,
        tracing: Tracing,
        explain: Explain,
        *,
        report_s: float = REPORT_S,
    ) -> None:
        self._core = _native.NativeEngine(asdict(limits), prompt=report_s == 0)
        self._is_prompt = report_s == 0
        self._report_s = report_s or REPORT_S
        self._observer = observer
        self._tracing = tracing
        self._explain = explain
        self._tables = Tables()
        self._paths: dict[int, Table] = {}
        self._classes: dict[int, dict[Hashable, int]] = {}
        self._deciders: dict[str, ListenerSpec] = {}
        self._verify: Callable[[bytes, bool], str] | None = None
        self._decisions: dict[int, Plan | Reply] = {}
        self._spans: dict[int, Span] = {}
        self._pauses: dict[tuple[int, int], Iterator[float]] = {}
        self._number = 0
        self._running = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Answer and report until cancelled, then end everything."""
        self._loop.add_reader(self._core.bell(), self._rung)
        self._running.set()
        try:
            while True:
                await asyncio.sleep(self._report_s)
                self._report()
        finally:
            self._loop.remove_reader(self._core.bell())
            self._core.stop()
            self._report()

    async def listen(self, spec: ListenerSpec) -> str:
        """Bind and accept; returns the bound address. Raises ListenError."""
        await self._running.wait()
        self._deciders[spec.name] = spec
        try:
            return self._core.listen(spec.name, spec.address, spec.tls == "mesh")
        except OSError as error:
            raise errors.ListenError(spec.name, spec.address, error.strerror or str(error)) from error

    async def unlisten(self, name: str) -> None:
        """Stop accepting; connections go on."""
        self._core.unlisten(name)
        spec = self._deciders.get(name)
        if spec is not None and spec.address.startswith("unix:"):
            _remove(spec.address[5:])

    # --- pushes ----------------------------------------------------------------------------------------------------------

    def set_cluster(self, cluster: Cluster) -> None:
        """Add or replace a cluster; connections to addresses that are gone drain."""
        upstreams = [(upstream.address, upstream.weight) for upstream in cluster.upstreams]
        self._core.set_cluster(cluster.key, cluster.wire, cluster.tls, upstreams)

    def drop_cluster(self, key: str) -> None:
        """Forget a cluster."""
        self._core.drop_cluster(key)

    def wake(self, key: str) -> None:
        """Have calls that are held for `key` ask again."""
        self._core.wake(key)

    def set_paths(self, number: int, table: Table) -> None:
        """Push a path table; the engine reads those that say how (`native_kind`), others are read here and remembered there."""
        self._tables.put_paths(number, table)
        self._paths[number] = table
        self._classes[number] = {}
        self._core.set_paths(number, str(getattr(table, "native_kind", "opaque")))

    def set_members(self, number: int, members: frozenset[bytes]) -> None:
        """Push a header set."""
        self._tables.put_set(number, members)
        self._core.set_members(number, list(members))

    def set_concurrency(self, gate: str, limit: int | None) -> None:
        """Put up or take down a gate."""
        self._core.set_concurrency(gate, limit)

    def set_identity(self, identity: TlsIdentity | None) -> None:
        """New contexts for new connections. Raises ValueError and leaves the old ones where the material is unusable."""
        if identity is None:
            self._core.set_identity(None)
            return
        self._core.set_identity((identity.chain_pem, identity.key_pem, identity.roots_pem))
        self._verify = identity.verify

    def bump(self, scope: str) -> None:
        """Drop every kept Plan of a scope."""
        self._core.bump(scope)

    async def drain(self, listeners: Sequence[str], within_s: float) -> int:
        """Goodbye on the listeners' connections; wait for their calls; returns how many were cut."""
        done: asyncio.Future[int] = self._loop.create_future()

        def tell(count: int) -> None:
            if not done.done():
                done.set_result(count)

        self._core.drain(
            list(listeners), within_s, lambda count: self._loop.call_soon_threadsafe(tell, count)
        )
        async with asyncio.timeout(within_s + 10.0):
            return await done

    def stats(self) -> EngineStats:
        """Numbers for status."""
        connections, calls, plans, upstream, _ = self._core.stats()
        return EngineStats(
            connections=connections, calls_in_flight=calls, plans_kept=plans, upstream_connections=upstream
        )

    def loads(self, key: str) -> tuple[dict[str, object], ...]:
        """Load and health of a cluster's endpoints, for status."""
        return tuple(
            {
                "address": address,
                "inFlight": in_flight,
                "rttMs": round(rtt_s * 1e3, 2),
                "ejectedForS": round(ejected_s, 1),
            }
            for address, in_flight, rtt_s, ejected_s in self._core.loads(key)
        )

    # --- questions -------------------------------------------------------------------------------------------------------

    def _rung(self) -> None:
        self._core.hush()
        while (question := self._core.next_question()) is not None:
            answer = cast("Callable[..., None]", getattr(self, f"_answer_{question.kind}"))
            answer(question, *question.args)
        if self._is_prompt:
            self._report()

    def _answer_decide(self, question: Question, *fields: object) -> None:
        head = _head(fields)
        asking = Asking(head, self._tables)
        decision = self._deciders[head.listener].decide(asking)
        if isinstance(decision, Hold):
            question.hold(decision.key, decision.for_s, self._reply_parts(decision.then))
        elif isinstance(decision, Reply):
            question.reply(self._reply_parts(decision), self._reads(asking))
        else:
            question.plan(self._plan_parts(decision), self._reads(asking))

    def _answer_class(self, question: Question, path: str, number: int) -> None:
        table = self._paths.get(number)
        question.class_is(self._class(number, table.classify(path)) if table is not None else None)

    def _class(self, table: int, answer: Hashable) -> int:
        classes = self._classes.setdefault(table, {})
        return classes.setdefault(answer, len(classes))

    def _reads(self, asking: Asking) -> "list[ReadParts]":
        found: list[ReadParts] = []
        for read, answer in zip(asking.vary, asking.key, strict=True):
            table = read.table if read.facet is not Facet.PATH or read.table is not None else 0
            kind = None
            if read.facet is Facet.PATH and table is not None:
                kind = self._class(table, answer)
            found.append((read.facet.value, read.name, table, kind))
        return found

    def _answer_span(self, question: Question, headers: tuple[Header, ...], grpc: bool) -> None:
        span = self._tracing.begin(headers, grpc=grpc)
        self._number += 1
        self._spans[self._number] = span
        question.span(self._number, span.traceparent, span.grpc_trace_bin if grpc else b"")

    def _answer_reply(self, question: Question, token: int, cause: str) -> None:
        plan = self._decisions[token]
        assert isinstance(plan, Plan)
        question.reply(self._reply_parts(plan.on_cause[Cause(cause)]), [])

    def _answer_undecided(self, question: Question, listener: str, reason: str | None) -> None:
        labels = _unlabelled(listener)
        if reason is None:
            made = errors.reply(Cause.TIMEOUT, labels, f"the call's deadline passed: {DETAIL}")
        else:
            made = errors.reply(Cause.BAD_REQUEST, labels, f"bad request: {reason}")
        question.reply(self._reply_parts(made), [])

    def _answer_pauses(self, question: Question, call: int, token: int, rule: int) -> None:
        drawing = self._pauses.get((call, rule))
        if drawing is None:
            plan = self._decisions[token]
            assert isinstance(plan, Plan)
            if len(self._pauses) >= _MAX_CALLS_RETRYING:
                self._pauses.pop(next(iter(self._pauses)))
            drawing = self._pauses[call, rule] = _draw(plan.again[rule])
        question.pauses(list(islice(drawing, _PAUSES)))

    def _answer_explain(self, question: Question, key: str) -> None:
        question.explain(self._explain(key))

    def _answer_verify(self, question: Question, der: bytes, as_server: bool) -> None:
        if self._verify is None:
            question.verify(None, "this proxy holds no certificate yet")
            return
        try:
            question.verify(self._verify(der, as_server), "")
        except ValueError as error:
            question.verify(None, str(error))

    def _token(self, decision: Plan | Reply) -> int:
        self._number += 1
        self._decisions[self._number] = decision
        return self._number

    def _reply_parts(self, reply: Reply) -> "ReplyParts":
        return (
            self._token(reply),
            reply.status,
            list(reply.headers),
            reply.body,
            reply.grpc_code,
            reply.grpc_message,
            reply.cause.value,
            list(reply.scopes),
        )

    def _plan_parts(self, plan: Plan) -> "PlanParts":
        routes = [
            (route.cluster, route.weight, sorted(route.expect), _edit_parts(route.edits))
            for route in plan.routes
        ]
        return (
            self._token(plan),
            routes,
            [_again_parts(again) for again in plan.again],
            list(plan.gates),
            (plan.connect_s, plan.attempt_s, plan.total_s),
            plan.body_bytes,
            plan.replay_bytes,
            _edit_parts(plan.reply_edits),
            list(plan.scopes),
        )

    # --- reports ---------------------------------------------------------------------------------------------------------

    def _report(self) -> None:
        for name, *values in self._core.take_notices():
            getattr(self._observer, str(name))(*values)
        while outcomes := self._core.take_outcomes(_BATCH):
            for outcome in outcomes:
                self._finished(outcome)
        for token in self._core.take_dead():
            self._decisions.pop(token, None)

    def _finished(self, parts: "OutcomeParts") -> None:
        fields, token, span, started_ns, head_ns, ended_ns, status, grpc_code, cause, attempts, up, down = (
            parts
        )
        head = _head(fields)
        decision = self._decisions.get(token) if token is not None else None
        begun = self._spans.pop(span, None)
        self._observer.finished(
            Outcome(
                head=head,
                labels=decision.labels if decision is not None else _unlabelled(head.listener),
                trace=begun or self._tracing.begin(head.headers, grpc=head.protocol == "grpc"),
                started_ns=started_ns,
                head_ns=head_ns,
                ended_ns=ended_ns,
                status=status,
                grpc_code=grpc_code,
                cause=Cause(cause) if cause is not None else None,
                attempts=[_attempt(attempt) for attempt in attempts],
                up_bytes=up,
                down_bytes=down,
            )
        )


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _head(fields: Sequence[object]) -> RequestHead:
    return RequestHead(**dict(zip(_HEAD_FIELDS, cast("Any", fields), strict=True)))


def _attempt(parts: "AttemptParts") -> Attempt:
    endpoint, started_ns, head_ns, ended_ns, cause, status, grpc_code, detail = parts
    known = Cause(cause) if cause is not None else None
    return Attempt(endpoint, started_ns, head_ns, ended_ns, known, status, grpc_code, detail)


def _edit_parts(edits: Edits) -> "list[EditParts]":
    return [(edit.op.value, edit.name, edit.data) for edit in edits]


def _again_parts(again: Again) -> "AgainParts":
    return (
        again.attempts,
        [cause.value for cause in again.on],
        None if again.http_codes is None else sorted(again.http_codes),
        None if again.grpc_codes is None else sorted(again.grpc_codes),
    )


def _draw(again: Again) -> Iterator[float]:
    drawn = again.delays_s()
    with suppress(StopIteration):
        while True:
            yield next(drawn)


def _unlabelled(listener: str) -> Labels:
    return Labels(direction="inbound" if listener == "peer" else "outbound")
