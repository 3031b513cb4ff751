"""What Rust refers to by number: Python's decisions and spans, until Rust says that nothing holds them any more."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from proxy.contract.engine import HopSpan, SpanLabels
from proxy.contract.plan import Labels, Plan, Reply

if TYPE_CHECKING:
    from proxy.engine.native._native import TokenParts

_MAX_LABELS = 4_096


class Known:
    """Mutable state: decisions, labels and spans by the numbers that the engine knows them by.

    Calls under equal labels are added up together. A span is taken once, by its call's report.
    """

    def __init__(
        self,
        pieces: Callable[[Labels], list[tuple[str, bytes]] | None] = lambda _: None,
        span_labels: Callable[[Labels], SpanLabels | None] = lambda _: None,
    ) -> None:
        self._pieces = pieces
        self._span_labels = span_labels
        self._number = 0
        self._decisions: dict[int, Plan | Reply] = {}
        self._labels: dict[Labels, int] = {}
        self._spans: dict[int, HopSpan] = {}

    def _next(self) -> int:
        self._number += 1
        return self._number

    def add_decision(self, decision: Plan | Reply) -> "TokenParts":
        """The number of a decision from now on, that of its labels, the pieces of its calls' lines, what their spans say, and their
        sampling."""
        number = self._next()
        self._decisions[number] = decision
        if len(self._labels) >= _MAX_LABELS:
            self._labels.clear()  # equal ones get another number: they are added up apart
        labels = decision.labels
        return (
            number,
            self._labels.setdefault(labels, number),
            self._pieces(labels),
            self._span_labels(labels),
            labels.sampling,
        )

    def add_span(self, span: HopSpan) -> int:
        """The number of a span from now on."""
        number = self._next()
        self._spans[number] = span
        return number

    @property
    def count(self) -> int:
        """How many decisions there are."""
        return len(self._decisions)

    def decision(self, token: int | None) -> Plan | Reply | None:
        """The decision of a number, or None where it was forgotten."""
        return self._decisions.get(token) if token is not None else None

    def deciding(self, token: int) -> Plan | Reply:
        """The decision of a number that a call is under way by."""
        return self._decisions[token]

    def plan(self, token: int) -> Plan:
        """The Plan of a number that calls are being carried by."""
        plan = self._decisions[token]
        assert isinstance(plan, Plan)
        return plan

    def take_span(self, number: int | None) -> HopSpan | None:
        """The span with this number, which is not asked for again."""
        return self._spans.pop(number, None) if number is not None else None

    def forget(self, tokens: Iterable[int]) -> None:
        """Nothing holds these decisions any more."""
        for token in tokens:
            self._decisions.pop(token, None)
