"""Answers what only Python can say: decisions, classes of paths, spans, ready-made answers, pauses, whom a certificate names.

Every kind of question is a case of `Answers.answer`; `Asked` in `_native.pyi` says what each carries.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from proxy.contract.authorizing import Authorized, Granted, Unanswered
from proxy.contract.engine import ListenerSpec, PeerLeaf, RefusedLeafError, Tracing
from proxy.contract.head import Headers, RequestHead
from proxy.contract.plan import Cause, Hold, Reply, RetryPolicy
from proxy.contract.recording import Facet, RecordingHead, ShapedTable, Table, Tables
from proxy.engine.native import parts
from proxy.engine.native.known import Known
from proxy.wire import answers

if TYPE_CHECKING:
    from proxy.engine.native._native import Asked, HeadParts, Question, ReadParts, ReplyParts, ShapeParts

Explain = Callable[[str], str]
_PAUSES = 16  # of a retry rule, drawn at once
_MAX_CALLS_RETRYING = 4_096


class Answers:
    """Mutable state: what was pushed (deciders, tables, the check of leaves), classes of paths by table, pauses of calls that retry."""

    def __init__(self, known: Known, tracing: Tracing, explain: Explain, *, keep_decisions: bool) -> None:
        self._known = known
        self._tracing = tracing
        self._explain = explain
        self._keep_decisions = keep_decisions
        self._tables = Tables()
        self._paths: dict[int, Table] = {}
        self._classes: dict[int, dict[Hashable, int]] = {}
        self._classed_there: set[int] = set()
        self._pauses: dict[tuple[int, int], Iterator[float]] = {}
        self.listeners: dict[str, ListenerSpec] = {}
        self.verify: Callable[[bytes, bool], PeerLeaf] | None = None

    def set_paths(self, number: int, table: Table) -> "ShapeParts":
        """Put a path table; says how the engine may classify its paths by itself. Those of other tables are classified here."""
        self._tables.put_paths(number, table)
        self._paths[number] = table
        self._classes[number] = {}
        shape = table.shape if isinstance(table, ShapedTable) else None
        self._classed_there.discard(number)
        if shape is not None and shape.kind != "access":
            self._classed_there.add(number)
        return parts.shape_parts(shape)

    def set_members(self, number: int, members: frozenset[bytes]) -> None:
        """Put a header set."""
        self._tables.put_set(number, members)

    def answer(self, asked: "Asked") -> None:
        """Answer one question."""
        match asked:
            case ("decide", head, question):
                self._decide(question, head)
            case ("class", (path, number), question):
                question.class_is(answers.recalled(lambda: self._class_of(path, number)))
            case ("span", (headers, is_grpc), question):
                self._span(question, headers, is_grpc=is_grpc)
            case ("reply", (token, cause), question):
                question.reply(self._reply_parts(self._known.deciding(token).local_replies[Cause(cause)]), [])
            case ("undecided", (head, reason), question):
                self._undecided(question, parts.head(head), reason)
            case ("pauses", (call, token, rule, is_anew), question):
                drawing = self._drawing(call, token, rule, is_anew=is_anew)
                question.pauses(list(islice(drawing, _PAUSES)))
            case ("explain", (key,), question):
                question.explain(self._explain(key))
            case ("authorize", (head, token), question):
                self._authorize(question, parts.head(head), token)
            case ("verify", (der, as_server), question):
                self._verify(question, der, as_server=as_server)
            case _:
                parts.unknown(asked)

    def _decide(self, question: "Question", fields: "HeadParts") -> None:
        head = parts.head(fields)
        asking = RecordingHead(head, self._tables)
        decision = answers.decided(self.listeners[head.listener].decide, asking)
        if isinstance(decision, Hold):
            question.hold(decision.key, decision.for_s, self._reply_parts(decision.then))
        elif isinstance(decision, Reply):
            question.reply(self._reply_parts(decision), self._reads(asking))
        else:
            question.plan(parts.plan_parts(self._known.add_decision(decision), decision), self._reads(asking))

    def _undecided(self, question: "Question", head: RequestHead, reason: str | None) -> None:
        spec = self.listeners[head.listener]
        if reason is None:
            decision = answers.decided(spec.decide, RecordingHead(head, self._tables))
            made = answers.timed_out(decision, spec, head.headers)
        else:
            made = answers.bad_request(reason, spec, head.headers)
        question.reply(self._reply_parts(made), [])

    def _authorize(self, question: "Question", head: RequestHead, token: int) -> None:
        def tell(found: Authorized) -> None:
            if isinstance(found, Granted):
                question.granted(parts.edit_parts(found.request), parts.edit_parts(found.reply))
            elif isinstance(found, Unanswered):
                question.unanswered(found.detail)
            else:
                question.reply(self._reply_parts(found), [])

        self.listeners[head.listener].authorize(self._known.plan(token), head, tell)

    def _reply_parts(self, reply: Reply) -> "ReplyParts":
        return parts.reply_parts(self._known.add_decision(reply), reply)

    def _class_of(self, path: str, number: int) -> int | None:
        table = self._paths.get(number)
        return None if table is None else self._class(number, table.classify(path))

    def _class(self, table: int, answer: Hashable) -> int:
        classes = self._classes.setdefault(table, {})
        return classes.setdefault(answer, len(classes))

    def _reads(self, asking: RecordingHead) -> "list[ReadParts] | None":
        if not self._keep_decisions or not asking.may_keep:
            return None
        found: list[ReadParts] = []
        for read, answer in zip(asking.vary, asking.key, strict=True):
            table = read.table if read.facet is not Facet.PATH or read.table is not None else 0
            kind = None
            if read.facet is Facet.PATH and table is not None and table not in self._classed_there:
                kind = self._class(table, answer)
            found.append((read.facet.value, read.name, table, kind))
        return found

    def _span(self, question: "Question", headers: Headers, *, is_grpc: bool) -> None:
        span = self._tracing.begin(headers, grpc=is_grpc)
        number = self._known.add_span(span)
        question.span(number, span.traceparent, span.grpc_trace_bin if is_grpc else b"")

    def _drawing(self, call: int, token: int, rule: int, *, is_anew: bool) -> Iterator[float]:
        drawing = None if is_anew else self._pauses.get((call, rule))
        if drawing is None:
            if len(self._pauses) >= _MAX_CALLS_RETRYING:
                self._pauses.pop(next(iter(self._pauses)))
            drawing = self._pauses[call, rule] = _draw(self._known.plan(token).retries[rule])
        return drawing

    def _verify(self, question: "Question", der: bytes, *, as_server: bool) -> None:
        if self.verify is None:
            question.verify(None, "not-ready", "this proxy has no certificate yet")
            return
        try:
            question.verify(self.verify(der, as_server), "", "")
        except RefusedLeafError as error:
            question.verify(None, error.reason, str(error))


def _draw(policy: RetryPolicy) -> Iterator[float]:
    drawn = policy.delays_s()
    with suppress(StopIteration):
        while True:
            yield next(drawn)
