"""The native engine's side in Python: answers its questions, hands on its reports, pushes what the control plane says.

Runs on the loop. The engine's own threads write questions and reports into queues and ring a bell (a descriptor that the loop
watches), so they never wait for the interpreter; a head that no kept Plan covers waits alone until the loop has decided.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import asdict

from proxy import errors
from proxy.contract.engine import (
    Cluster,
    EngineStats,
    Limits,
    ListenerSpec,
    Observer,
    PeerLeaf,
    RefusedLeafError,
    Sampling,
    Span,
    SpanIds,
    TlsIdentity,
    Tracing,
)
from proxy.contract.head import Header, RequestHead
from proxy.contract.outcome import Attempt, Outcome, Tally
from proxy.contract.plan import DETAIL, Cause, Edits, Hold, Labels, Plan, Reply, RetryPolicy
from proxy.contract.recording import Facet, RecordingHead, Shape, ShapedTable, Table, Tables
from proxy.engine.native import _native
from proxy.engine.native._native import Question

if TYPE_CHECKING:
    from proxy.engine.native._native import (
        AttemptParts,
        EditParts,
        OutcomeParts,
        PlanParts,
        ReadParts,
        ReplyParts,
        RetryParts,
        ShapeParts,
        SpanParts,
        TallyParts,
    )

Explain = Callable[[str], str]
REPORT_S = 0.1  # how long a report may lie; 0: not at all, for tests
_BATCH = 32  # reports handed on in one piece: the loop has other work
# Pause for each kind of call that was counted, which takes 0.1 ms: many kinds are added up longer, at a bounded share of time.
_COUNT_S = 0.005
_MAX_COUNT_S = 2.0
_BATCHES = 128  # of which so many at most at a time, so that a report comes to an end under any load
_PAUSES = 16  # of a retry rule, drawn at once
_MAX_CALLS_RETRYING = 4_096


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
        threads: int = 1,
        report_s: float = REPORT_S,
    ) -> None:
        self._core = _native.NativeEngine(asdict(limits), prompt=report_s == 0, threads=threads)
        self._threads = threads
        self._is_prompt = report_s == 0
        self._report_s = report_s or REPORT_S
        self._observer = observer
        self._tracing = tracing
        self._explain = explain
        self._tables = Tables()
        self._paths: dict[int, Table] = {}
        self._classes: dict[int, dict[Hashable, int]] = {}
        self._deciders: dict[str, ListenerSpec] = {}
        self._verify: Callable[[bytes, bool], PeerLeaf] | None = None
        self._decisions: dict[int, Plan | Reply] = {}
        self._spans: dict[int, Span] = {}
        self._pauses: dict[tuple[int, int], Iterator[float]] = {}
        self._read_there: set[int] = set()
        self._sampling: Sampling | None = None
        self._counts_due = 0.0
        self._number = 0
        self._running = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        measures = observer.measures
        if measures is not None:
            bounds = (list(measures.duration_s), list(measures.latency_ms), list(measures.size_bytes))
            self._core.set_measures((*bounds, measures.http_paths))
        self._push_sampling()

    async def run(self) -> None:
        """Answer and report until cancelled, then end everything."""
        self._loop.add_reader(self._core.bell(), self._rung)
        self._running.set()
        try:
            while True:
                await asyncio.sleep(self._report_s)
                self._push_sampling()
                for _ in self._reports():
                    await asyncio.sleep(0)
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
        upstreams = [(upstream.address, upstream.weight, upstream.rank) for upstream in cluster.upstreams]
        self._core.set_cluster(cluster.key, cluster.wire, cluster.tls, upstreams)

    def drop_cluster(self, key: str) -> None:
        """Forget a cluster."""
        self._core.drop_cluster(key)

    def wake(self, key: str) -> None:
        """Have calls that are held for `key` ask again."""
        self._core.wake(key)

    def set_paths(self, number: int, table: Table) -> None:
        """Push a path table; the engine reads those that have a shape, others are read here and remembered there."""
        self._tables.put_paths(number, table)
        self._paths[number] = table
        self._classes[number] = {}
        shape = table.shape if isinstance(table, ShapedTable) else None
        self._read_there.discard(number)
        if shape is not None and shape.kind != "access":
            self._read_there.add(number)
        self._core.set_paths(number, _shape_parts(shape))

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
        self._core.set_identity((identity.chain_pem, identity.key_pem, identity.roots_pem, identity.ends_at))
        self._verify = identity.verify

    def bump(self, scope: str) -> None:
        """Drop every kept Plan of a scope."""
        self._core.bump(scope)

    def judge_open(self) -> None:
        """Decide about open calls again; end those that are denied now."""
        self._core.judge_open()

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
        connections, calls, plans, upstream = self._core.stats()
        return EngineStats(
            connections=connections,
            calls_in_flight=calls,
            plans_kept=plans,
            upstream_connections=upstream,
            threads=self._threads,
        )

    def loads(self, key: str) -> tuple[dict[str, object], ...]:
        """Load and health of a cluster's endpoints, for status."""
        return tuple(
            {
                "address": address,
                "inFlight": in_flight,
                "rttMs": round(rtt_s * 1e3, 2),
                "ejectedForS": round(ejected_s, 1),
                "proven": is_proven,
            }
            for address, in_flight, rtt_s, ejected_s, is_proven in self._core.loads(key)
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
        asking = RecordingHead(head, self._tables)
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

    def _reads(self, asking: RecordingHead) -> "list[ReadParts]":
        found: list[ReadParts] = []
        for read, answer in zip(asking.vary, asking.key, strict=True):
            table = read.table if read.facet is not Facet.PATH or read.table is not None else 0
            kind = None
            if read.facet is Facet.PATH and table is not None and table not in self._read_there:
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
        question.reply(self._reply_parts(plan.local_replies[Cause(cause)]), [])

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
            drawing = self._pauses[call, rule] = _draw(plan.retries[rule])
        question.pauses(list(islice(drawing, _PAUSES)))

    def _answer_explain(self, question: Question, key: str) -> None:
        question.explain(self._explain(key))

    def _answer_verify(self, question: Question, der: bytes, as_server: bool) -> None:
        if self._verify is None:
            question.verify(None, "not-ready", "this proxy holds no certificate yet")
            return
        try:
            question.verify(self._verify(der, as_server), "", "")
        except RefusedLeafError as error:
            question.verify(None, error.reason, str(error))

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
            [_retry_parts(policy) for policy in plan.retries],
            list(plan.gates),
            (plan.connect_s, plan.attempt_s, plan.total_s),
            plan.body_bytes,
            plan.replay_bytes,
            _edit_parts(plan.reply_edits),
            list(plan.scopes),
        )

    # --- reports ---------------------------------------------------------------------------------------------------------

    def _push_sampling(self) -> None:
        sampling = self._tracing.sampling
        if sampling != self._sampling:
            self._sampling = sampling
            self._core.set_sampling(
                None if sampling is None else sampling.rate, sampling is not None and sampling.is_b3_read
            )

    def _report(self) -> None:
        self._counts_due = 0.0
        for _ in self._reports():
            pass

    def _reports(self) -> Iterator[None]:
        """Hand on what there is, in pieces."""
        core, observer = self._core, self._observer
        for name, *values in core.take_notices():
            getattr(observer, str(name))(*values)
        self._tell_counts()
        dead = core.take_dead()  # before what may still name a token is taken: those are forgotten next time
        yield from self._count()
        for take, tell in ((core.take_outcomes, observer.finished), (core.take_spans, observer.traced)):
            for _ in range(_BATCHES):
                outcomes = take(_BATCH)
                for outcome in outcomes:
                    tell(self._outcome(outcome))
                if len(outcomes) < _BATCH:
                    break
                yield
        for token in dead:
            self._decisions.pop(token, None)

    def _count(self) -> Iterator[None]:
        now = self._loop.time()
        if now < self._counts_due:
            return
        left = self._core.take_tallies()
        self._counts_due = now + min(len(left) * _COUNT_S, _MAX_COUNT_S)
        try:
            for number, tally in enumerate(left, 1):
                self._counted(tally)
                if number % _BATCH == 0:
                    yield
            yield
        finally:
            for tally in left:  # at the end of the engine nobody comes again
                self._counted(tally)

    def _tell_counts(self) -> None:
        hits, misses, reports, spans = self._core.take_counts()
        if misses:
            self._observer.plan_cache(hit=False, count=misses)
        if hits:
            self._observer.plan_cache(hit=True, count=hits)
        if reports or spans:
            self._observer.lost(reports, spans)

    def _counted(self, parts: "TallyParts") -> None:
        (token, protocol, method, path, status, grpc_code, cause), calls, sums = parts
        decision = self._decisions.get(token)
        if decision is None:
            return
        duration_s, to_end_ms, to_head_ms, to_head_whole_ms, up_bytes, down_bytes = sums
        self._observer.counted(
            Tally(
                labels=decision.labels,
                protocol=protocol,
                method=method,
                path=path,
                status=status,
                grpc_code=grpc_code,
                cause=Cause(cause) if cause is not None else None,
                calls=calls,
                duration_s=duration_s,
                to_end_ms=to_end_ms,
                to_head_ms=to_head_ms,
                to_head_whole_ms=to_head_whole_ms,
                up_bytes=up_bytes,
                down_bytes=down_bytes,
            )
        )

    def _span(self, parts: "SpanParts | int | None", head: RequestHead) -> Span:
        if isinstance(parts, tuple):
            upper, lower, span_id, parent_id, is_sampled, tracestate = parts
            return self._tracing.begun(
                SpanIds(upper << 64 | lower, span_id, parent_id, is_sampled, tracestate)
            )
        begun = self._spans.pop(parts, None) if parts is not None else None
        return begun or self._tracing.begin(head.headers, grpc=head.protocol == "grpc")

    def _outcome(self, parts: "OutcomeParts") -> Outcome:
        fields, token, span, started_ns, head_ns, ended_ns, status, grpc_code, cause, attempts, up, down = (
            parts
        )
        head = _head(fields)
        decision = self._decisions.get(token) if token is not None else None
        return Outcome(
            head=head,
            labels=decision.labels if decision is not None else _unlabelled(head.listener),
            trace=self._span(span, head),
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


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _head(fields: Sequence[object]) -> RequestHead:
    return RequestHead(*cast("Any", fields))


def _shape_parts(shape: Shape | None) -> "ShapeParts":
    if shape is None:
        return ("opaque", [], False, "sent")
    rules = [(ordered, opened, set(verbs)) for ordered, opened, verbs in shape.rules]
    return (shape.kind, rules, shape.fold_case, shape.form)


def _attempt(parts: "AttemptParts") -> Attempt:
    endpoint, started_ns, head_ns, ended_ns, cause, status, grpc_code, detail, said = parts
    return Attempt(
        endpoint, started_ns, head_ns, ended_ns, _cause(cause), status, grpc_code, detail, _cause(said)
    )


def _cause(name: str | None) -> Cause | None:
    return Cause(name) if name is not None else None


def _edit_parts(edits: Edits) -> "list[EditParts]":
    return [(edit.op.value, edit.name, edit.data) for edit in edits]


def _retry_parts(policy: RetryPolicy) -> "RetryParts":
    return (
        policy.attempts,
        [cause.value for cause in policy.on],
        None if policy.http_codes is None else sorted(policy.http_codes),
        None if policy.grpc_codes is None else sorted(policy.grpc_codes),
        policy.within_s,
    )


def _draw(policy: RetryPolicy) -> Iterator[float]:
    drawn = policy.delays_s()
    with suppress(StopIteration):
        while True:
            yield next(drawn)


def _unlabelled(listener: str) -> Labels:
    return Labels(direction="inbound" if listener == "peer" else "outbound")
