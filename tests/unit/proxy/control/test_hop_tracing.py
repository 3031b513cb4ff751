"""Spans of hops begin as children of what the headers carry, or as roots that a rate or a rule samples."""

import random

import pytest

from proxy.contract.engine import Sampling, SamplingRule, SpanIds
from proxy.contract.plan import FORCED, NEVER, REFUSED, REFUSED_PER_S
from proxy.control.hop_tracing import ContextSpan, HopTracing
from telemetry.context import Sampler, SpanContext, extract


@pytest.mark.parametrize("grpc", [True, False])
def test_span_of_a_hop_is_a_child_of_what_the_headers_carry(grpc: bool) -> None:
    tracing = HopTracing(Sampler(0.0, random.Random(1)))
    parent = ((b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),)
    span = tracing.begin(parent, grpc=grpc)
    assert span.context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert span.context.parent_id == 0x00F067AA0BA902B7
    assert span.context.sampled
    sent_on = extract(((b"traceparent", span.traceparent),), grpc=grpc)
    assert sent_on is not None
    assert sent_on.span_id == span.context.span_id
    binary = extract(((b"grpc-trace-bin", span.grpc_trace_bin),), grpc=True)
    assert binary is not None
    assert (binary.trace_id, binary.span_id) == (span.context.trace_id, span.context.span_id)


def test_new_sampler_holds_for_the_next_span() -> None:
    tracing = HopTracing(Sampler(0.0, random.Random(1)))
    assert not tracing.begin((), grpc=False).context.sampled
    tracing.sampler = Sampler(1.0, random.Random(1))
    assert tracing.begin((), grpc=False).context.sampled


def test_b3_is_read_unless_only_w3c_is_accepted() -> None:
    headers = ((b"b3", b"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"),)
    tracing = HopTracing(Sampler(0.0, random.Random(1)))
    assert tracing.begin(headers, grpc=False).context.sampled
    tracing.follow(HopTracing(Sampler(0.5, random.Random(1)), is_b3_read=False))
    assert tracing.begin(headers, grpc=False).context.trace_id != 0x4BF92F3577B34DA6A3CE929D0E0E4736
    assert tracing.sampling == Sampling(rate=0.5, is_b3_read=False)


def test_spans_that_the_engine_began_are_as_it_says() -> None:
    hops = HopTracing(Sampler(0.25, random.Random(1)))
    assert hops.sampling == Sampling(rate=0.25, is_b3_read=True)
    assert hops.from_ids(SpanIds(1, 2, 3, True, "a=1")).context == SpanContext(1, 2, 3, True, "a=1")


def test_rules_decide_about_roots_alone_and_force_about_all() -> None:
    rules = [SamplingRule(0.0), SamplingRule(1.0)]
    hops = HopTracing(Sampler(0.0, random.Random(1)), rules=rules)
    assert hops.sampling.rules == tuple(rules)

    def is_sampled(number: int, *, parent: int, sampled: bool) -> bool:
        found = hops.by_rule(ContextSpan(SpanContext(1, 1, parent, sampled)), number)
        assert isinstance(found, ContextSpan)
        return found.context.sampled

    roots = [is_sampled(number, parent=0, sampled=True) for number in (1, 2, 3, FORCED)]
    assert roots == [False, True, True, True]
    children = [is_sampled(number, parent=7, sampled=False) for number in (1, 2, 3, FORCED)]
    assert children == [False, False, False, True]


def test_refusals_are_recorded_up_to_a_rate_and_what_has_no_span_never() -> None:
    now = [0.0]
    tracing = HopTracing(Sampler(1.0, random.Random(1)), clock=lambda: now[0])

    def is_recorded(number: int, *, sampled: bool = True) -> bool:
        span = tracing.by_rule(ContextSpan(SpanContext(1, 2, 7, sampled)), number)
        return isinstance(span, ContextSpan) and span.context.sampled

    assert not is_recorded(NEVER)
    assert not is_recorded(REFUSED, sampled=False)
    assert sum(is_recorded(REFUSED) for _ in range(100)) == REFUSED_PER_S
    now[0] = 0.5
    assert sum(is_recorded(REFUSED) for _ in range(100)) == REFUSED_PER_S / 2
