"""Begins the spans of hops: by the caller's decision, else by the sampling that a Configuration says."""

import time
from collections.abc import Callable, Sequence

from proxy.contract.engine import HopSpan, Sampling, SamplingRule, SpanIds
from proxy.contract.head import Header
from proxy.contract.plan import FORCED, NEVER, REFUSED, REFUSED_PER_S
from telemetry.context import (
    RuleSampler,
    Sampler,
    SpanContext,
    extract,
    format_grpc_trace_bin,
    format_traceparent,
)


class ContextSpan:
    """A `HopSpan` over a span context: wire values made only when asked for."""

    __slots__ = ("context",)

    def __init__(self, context: SpanContext) -> None:
        self.context = context

    @property
    def traceparent(self) -> bytes:
        """The traceparent to send on."""
        return format_traceparent(self.context)

    @property
    def grpc_trace_bin(self) -> bytes:
        """The same in gRPC's binary form."""
        return format_grpc_trace_bin(self.context)


class HopTracing:
    """Begins spans by what is in force. Mutable state, replaced by a new configuration: `sampler`, whether B3 is read, and the rules."""

    def __init__(
        self,
        sampler: Sampler,
        *,
        is_b3_read: bool = True,
        rules: Sequence[SamplingRule] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sampler = sampler
        self.is_b3_read = is_b3_read
        self._rules = tuple(rules)
        self._by_rule = tuple(RuleSampler(*rule, clock) for rule in rules)
        self._refused = RuleSampler(1.0, REFUSED_PER_S, clock)

    def follow(self, other: "HopTracing") -> None:
        """Begin spans as `other` does from now on."""
        self.sampler, self.is_b3_read = other.sampler, other.is_b3_read
        self._rules, self._by_rule = other._rules, other._by_rule

    def begin(self, headers: Sequence[Header], *, grpc: bool) -> ContextSpan:
        """A fresh span, child of what the headers carry."""
        return ContextSpan(self.sampler.start(extract(headers, grpc=grpc, b3=self.is_b3_read)))

    def by_rule(self, span: HopSpan, number: int) -> HopSpan:
        """The same span by a rule, which decides about roots alone, or as FORCED, REFUSED and NEVER say of all."""
        assert isinstance(span, ContextSpan)
        context = span.context
        if number == FORCED:
            return ContextSpan(context._replace(sampled=True))
        if number in {REFUSED, NEVER}:
            sampled = context.sampled and number == REFUSED and self._refused.takes(context.trace_id)
            return ContextSpan(context._replace(sampled=sampled))
        if context.parent_id or number > len(self._by_rule):
            return span
        return ContextSpan(context._replace(sampled=self._by_rule[number - 1].takes(context.trace_id)))

    @property
    def sampling(self) -> Sampling:
        """The same as rules, for engines that begin spans themselves."""
        return Sampling(rate=self.sampler.rate, is_b3_read=self.is_b3_read, rules=self._rules)

    def from_ids(self, ids: SpanIds) -> ContextSpan:
        """The span that an engine began."""
        return ContextSpan(SpanContext(*ids))
