"""Trace headers in both directions, and who decides what is sampled."""

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.context import (
    Sampler,
    SpanContext,
    extract,
    format_grpc_trace_bin,
    format_traceparent,
    parse_grpc_trace_bin,
    parse_traceparent,
    parse_tracestate,
)

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"
VALID = b"00-" + TRACE + b"-" + SPAN + b"-01"
CONTEXT = SpanContext(int(TRACE, 16), int(SPAN, 16), 0, True)

contexts = st.builds(
    SpanContext, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.just(0), st.booleans(), st.just("")
)


def test_parse_traceparent_valid_gives_ids_and_flag() -> None:
    assert parse_traceparent(VALID) == CONTEXT
    assert parse_traceparent(VALID[:-2] + b"00") == CONTEXT._replace(sampled=False)


def test_parse_traceparent_unknown_flags_are_ignored() -> None:
    assert parse_traceparent(VALID[:-2] + b"ff") == CONTEXT
    assert parse_traceparent(VALID[:-2] + b"fe") == CONTEXT._replace(sampled=False)


@pytest.mark.parametrize("later", [b"01" + VALID[2:], b"cc" + VALID[2:] + b"-what-the-future-adds"])
def test_parse_traceparent_later_version_is_read_as_version_0(later: bytes) -> None:
    assert parse_traceparent(later) == CONTEXT


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"00",
        VALID + b"-extra",
        VALID + b"-",
        b"01" + VALID[2:] + b".x",
        b"ff" + VALID[2:],
        b"0x" + VALID[2:],
        VALID.upper(),
        VALID[:-1],
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE[:-1] + b"g-" + SPAN + b"-01",
        b"00-+" + TRACE[1:] + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-0_1_2_3_4_5_6_7_-01",
        b"00_" + VALID[3:],
        VALID + b"\n",
        b"\xff" * 55,
    ],
)
def test_parse_traceparent_invalid_is_absent(bad: bytes) -> None:
    assert parse_traceparent(bad) is None
    assert extract([(b"traceparent", bad)], grpc=False) is None


def test_parse_traceparent_surrounding_white_space_is_allowed() -> None:
    assert parse_traceparent(b" \t" + VALID + b" ") == CONTEXT


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


def test_extract_without_trace_headers_is_none() -> None:
    assert extract([(b"host", b"x"), (b"accept", b"*/*")], grpc=False) is None
    assert extract([], grpc=True) is None


def test_extract_http_two_different_traceparents_is_none() -> None:
    other = VALID.replace(SPAN, b"00f067aa0ba902b8")
    assert extract([(b"traceparent", VALID), (b"traceparent", other)], grpc=False) is None
    assert extract([(b"traceparent", VALID), (b"traceparent", VALID)], grpc=False) == CONTEXT


def test_extract_grpc_several_values_the_nearest_hop_wins() -> None:
    other = b"00-" + TRACE + b"-1111111111111111-01"
    found = extract([(b"traceparent", other), (b"traceparent", VALID)], grpc=True)
    assert found == CONTEXT
    near = format_grpc_trace_bin(CONTEXT)
    far = format_grpc_trace_bin(CONTEXT._replace(span_id=7))
    assert extract([(b"grpc-trace-bin", far), (b"grpc-trace-bin", near)], grpc=True) == CONTEXT
    assert extract([(b"grpc-trace-bin", far + b"," + near)], grpc=True) == CONTEXT


def test_extract_grpc_binary_header_comes_before_traceparent() -> None:
    headers = [
        (b"traceparent", VALID),
        (b"grpc-trace-bin", format_grpc_trace_bin(CONTEXT._replace(span_id=7))),
    ]
    on_grpc = extract(headers, grpc=True)
    assert on_grpc is not None
    assert on_grpc.span_id == 7
    assert extract(headers, grpc=False) == CONTEXT


def test_extract_grpc_invalid_binary_header_falls_back_to_traceparent() -> None:
    assert extract([(b"grpc-trace-bin", b"????"), (b"traceparent", VALID)], grpc=True) == CONTEXT


def test_extract_tracestate_travels_with_its_traceparent() -> None:
    headers = [(b"traceparent", VALID), (b"tracestate", b"a=1, b=2"), (b"tracestate", b"c=3")]
    found = extract(headers, grpc=False)
    assert found is not None
    assert found.tracestate == "a=1,b=2,c=3"


def test_extract_tracestate_beside_a_binary_header_is_kept() -> None:
    wire = format_grpc_trace_bin(CONTEXT)
    found = extract([(b"grpc-trace-bin", wire), (b"tracestate", b"a=1")], grpc=True)
    assert found is not None
    assert found.tracestate == "a=1"


def test_extract_tracestate_of_another_trace_is_dropped() -> None:
    wire = format_grpc_trace_bin(CONTEXT._replace(trace_id=5))
    found = extract([(b"grpc-trace-bin", wire), (b"traceparent", VALID), (b"tracestate", b"a=1")], grpc=True)
    assert found is not None
    assert (found.trace_id, found.tracestate) == (5, "")


def test_extract_tracestate_without_traceparent_is_none() -> None:
    assert extract([(b"tracestate", b"a=1")], grpc=False) is None


def test_parse_tracestate_members_at_and_over_the_limit() -> None:
    at_limit = b",".join(b"k%d=v" % n for n in range(32))
    assert parse_tracestate(at_limit) == at_limit.decode()
    assert parse_tracestate(at_limit + b",k32=v") == ""


def test_parse_tracestate_512_characters_pass() -> None:
    member = b"vendor=" + b"x" * 256
    assert len(parse_tracestate(member + b"," + b"other=" + b"y" * 256)) >= 512


@pytest.mark.parametrize("bad", [b"a", b"A=1", b"a=1,a=2", b"a=\x01", b"a=\xff", b"=1", b"a=" + b"x" * 257])
def test_parse_tracestate_invalid_is_dropped_whole(bad: bytes) -> None:
    assert parse_tracestate(b"ok=1," + bad) == ""


@pytest.mark.parametrize(
    ("headers", "sampled"),
    [
        ([(b"b3", TRACE + b"-" + SPAN + b"-1")], True),
        ([(b"b3", TRACE + b"-" + SPAN + b"-d-" + SPAN)], True),
        ([(b"b3", TRACE + b"-" + SPAN + b"-0")], False),
        ([(b"b3", TRACE + b"-" + SPAN)], False),
        ([(b"x-b3-traceid", TRACE), (b"x-b3-spanid", SPAN), (b"x-b3-sampled", b"1")], True),
        ([(b"x-b3-traceid", TRACE), (b"x-b3-spanid", SPAN), (b"x-b3-flags", b"1")], True),
        ([(b"x-b3-traceid", TRACE), (b"x-b3-spanid", SPAN), (b"x-b3-sampled", b"0")], False),
    ],
)
def test_extract_b3_single_and_multi(headers: list[tuple[bytes, bytes]], sampled: bool) -> None:
    assert extract(headers, grpc=False) == CONTEXT._replace(sampled=sampled)
    assert extract(headers, grpc=False, b3=False) is None


def test_extract_b3_short_trace_id_is_accepted() -> None:
    found = extract([(b"b3", SPAN + b"-" + SPAN + b"-1")], grpc=False)
    assert found == SpanContext(int(SPAN, 16), int(SPAN, 16), 0, True)


@pytest.mark.parametrize("bad", [b"0", b"1", b"d", TRACE, TRACE + b"-" + b"0" * 16 + b"-1", b"x-y-z"])
def test_extract_b3_without_ids_is_none(bad: bytes) -> None:
    assert extract([(b"b3", bad)], grpc=False) is None


def test_extract_traceparent_comes_before_b3() -> None:
    headers = [(b"b3", b"1" * 32 + b"-" + SPAN + b"-1"), (b"traceparent", VALID)]
    assert extract(headers, grpc=False) == CONTEXT


@given(st.floats(allow_nan=True), st.booleans())
def test_sampler_valid_parent_decides_whatever_the_rate(rate: float, sampled: bool) -> None:
    parent = CONTEXT._replace(sampled=sampled, tracestate="a=1")
    child = Sampler(rate, random.Random(1)).start(parent)
    assert (child.trace_id, child.parent_id, child.sampled) == (parent.trace_id, parent.span_id, sampled)
    assert child.tracestate == "a=1"
    assert child.span_id not in (0, parent.span_id)


@pytest.mark.parametrize(("rate", "sampled"), [(1.0, True), (7.0, True), (0.0, False), (-1.0, False)])
def test_sampler_root_at_the_ends_of_the_rate(rate: float, sampled: bool) -> None:
    sampler = Sampler(rate, random.Random(1))
    assert {sampler.start(None).sampled for _ in range(200)} == {sampled}


def test_sampler_rate_that_is_no_number_samples_nothing() -> None:
    assert not Sampler(float("nan"), random.Random(1)).start(None).sampled


def test_sampler_root_decides_by_the_low_half_of_the_trace_id() -> None:
    sampler = Sampler(0.25, random.Random(3))
    for root in (sampler.start(None) for _ in range(500)):
        assert root.sampled == ((root.trace_id & (2**64 - 1)) < 2**62)
        assert root.parent_id == 0


def test_sampler_root_rate_is_kept_on_average() -> None:
    sampler = Sampler(0.25, random.Random(5))
    assert 800 < sum(sampler.start(None).sampled for _ in range(4000)) < 1200
