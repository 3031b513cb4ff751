"""Trace headers in both directions, and who decides what is sampled."""

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.context import (
    RuleSampler,
    Sampler,
    SpanContext,
    extract,
    format_grpc_trace_bin,
    format_traceparent,
    parse_grpc_trace_bin,
    parse_traceparent,
    parse_tracestate,
)
from tests.support.vectors import Text, Vector, octets, spelt, vectors

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"
VALID = b"00-" + TRACE + b"-" + SPAN + b"-01"
CONTEXT = SpanContext(int(TRACE, 16), int(SPAN, 16), 0, True)

contexts = st.builds(
    SpanContext, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.just(0), st.booleans(), st.just("")
)


Remote = tuple[str, str, bool, Text]
"""Trace id, span id, whether it is sampled, tracestate."""


def context_of(remote: Remote) -> SpanContext:
    trace_id, span_id, sampled, tracestate = remote
    return SpanContext(int(trace_id, 16), int(span_id, 16), 0, sampled, spelt(tracestate))


class Read(Vector, frozen=True, kw_only=True):
    fields: list[tuple[str, Text]]
    grpc: bool = False
    b3: bool = True
    span: Remote | None


@vectors("trace", "read", Read)
def test_fields_name_the_remote_span(vector: Read) -> None:
    fields = [(b"accept", b"*/*"), *((name.encode(), octets(value)) for name, value in vector.fields)]
    expected = None if vector.span is None else context_of(vector.span)
    assert extract(fields, grpc=vector.grpc, b3=vector.b3) == expected


class Written(Vector, frozen=True, kw_only=True):
    span: Remote
    traceparent: str
    grpc_trace_bin: str


@vectors("trace", "written", Written)
def test_both_forms_are_written(vector: Written) -> None:
    assert format_traceparent(context_of(vector.span)) == vector.traceparent.encode()
    assert format_grpc_trace_bin(context_of(vector.span)) == vector.grpc_trace_bin.encode()


class Sampling(Vector, frozen=True, kw_only=True):
    rate: float
    trace_id: str
    sampled: bool


class OneId(random.Random):
    """A chance by which every trace has this id."""

    def __init__(self, trace_id: int) -> None:
        super().__init__()
        self.trace_id = trace_id

    def getrandbits(self, k: int, /) -> int:
        return self.trace_id if k == 128 else 1


@vectors("trace", "sampling", Sampling)
def test_roots_are_sampled_by_rate_and_id(vector: Sampling) -> None:
    root = Sampler(vector.rate, OneId(int(vector.trace_id, 16))).start(None)
    assert root == SpanContext(int(vector.trace_id, 16), 1, 0, vector.sampled)


@given(contexts)
def test_traceparent_format_and_parse_are_inverse(context: SpanContext) -> None:
    assert parse_traceparent(format_traceparent(context)) == context


@given(contexts)
def test_grpc_trace_bin_format_and_parse_are_inverse(context: SpanContext) -> None:
    wire = format_grpc_trace_bin(context)
    assert parse_grpc_trace_bin(wire) == context
    assert parse_grpc_trace_bin(wire + b"=" * (-len(wire) % 4)) == context


@given(st.binary(max_size=80))
def test_parsers_any_bytes_never_raise(value: bytes) -> None:
    parse_traceparent(value)
    parse_grpc_trace_bin(value)
    parse_tracestate(value)
    for grpc in (True, False):
        extract([(b"b3", value), (b"grpc-trace-bin", value), (b"x-b3-traceid", value)], grpc=grpc)


@pytest.mark.parametrize("index", [0, 1, 18, 27])
def test_parse_grpc_trace_bin_wrong_field_tag_is_absent(index: int) -> None:
    raw = bytearray(base64.b64decode(format_grpc_trace_bin(CONTEXT) + b"="))
    raw[index] = 9
    assert parse_grpc_trace_bin(base64.b64encode(bytes(raw))) is None


def test_parse_tracestate_512_characters_pass() -> None:
    member = b"vendor=" + b"x" * 256
    assert len(parse_tracestate(member + b"," + b"other=" + b"y" * 256)) >= 512


@pytest.mark.parametrize("bad", [b"a", b"a=\x01", b"=1"])
def test_parse_tracestate_invalid_is_dropped_whole(bad: bytes) -> None:
    assert parse_tracestate(b"ok=1," + bad) == ""


@given(st.floats(allow_nan=True), st.booleans())
def test_sampler_valid_parent_decides_whatever_the_rate(rate: float, sampled: bool) -> None:
    parent = CONTEXT._replace(sampled=sampled, tracestate="a=1")
    child = Sampler(rate, random.Random(1)).start(parent)
    assert (child.trace_id, child.parent_id, child.sampled) == (parent.trace_id, parent.span_id, sampled)
    assert child.tracestate == "a=1"
    assert child.span_id not in (0, parent.span_id)


def test_sampler_rate_that_is_no_number_samples_nothing() -> None:
    assert not Sampler(float("nan"), random.Random(1)).start(None).sampled


def test_sampler_root_rate_is_kept_on_average() -> None:
    sampler = Sampler(0.25, random.Random(5))
    assert 800 < sum(sampler.start(None).sampled for _ in range(4000)) < 1200


def test_rule_samples_as_many_as_a_second_brings() -> None:
    now = [0.0]

    def through(rule: RuleSampler, at_s: float) -> int:
        now[0] = at_s
        return sum(rule.takes(1) for _ in range(9))

    two = RuleSampler(1.0, 2.0, lambda: now[0])
    assert [through(two, at_s) for at_s in (0.0, 0.5, 0.6, 9.0)] == [2, 1, 0, 2]
    now[0] = 0.0
    slow = RuleSampler(1.0, 0.5, lambda: now[0])
    assert [through(slow, at_s) for at_s in (0.0, 1.0, 2.0)] == [1, 0, 1]
    assert through(RuleSampler(1.0, None, lambda: now[0]), 2.0) == 9
    assert through(RuleSampler(0.0, None, lambda: now[0]), 2.0) == 0
