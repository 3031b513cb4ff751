"""Our HPACK decoder reads what hpack's reads, and lets through what h2's checks let through."""

import hpack
import pytest
from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.struct import NeverIndexedHeaderTuple
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.contract.head import Header
from proxy.wire.field_decoder import MALFORMED, OVERSIZED, FieldDecoder
from proxy.wire.field_encoder import FieldEncoder
from proxy.wire.http2_server import read_head

_NAMES = st.sampled_from(
    (
        b":method",
        b":path",
        b":scheme",
        b":authority",
        b":status",
        b":protocol",
        b":other",
        b"te",
        b"host",
        b"connection",
        b"transfer-encoding",
        b"content-type",
        b"x-a",
        b"X-a",
        b"x a",
        b"x:a",
        b"",
    )
)
_VALUES = st.sampled_from(
    (b"", b"GET", b"CONNECT", b"/", b"http", b"a", b" a", b"a\t", b"a\nb", b"a b", b"\xff", b"trailers")
)
_FIELDS = st.lists(st.tuples(_NAMES, _VALUES), max_size=6)
_GOOD_NAMES = st.from_regex(rb"[a-z][a-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name not in {b"te", b"connection", b"upgrade"}
)
_GOOD = st.tuples(_GOOD_NAMES, st.from_regex(rb"[!-~]{0,40}", fullmatch=True), st.booleans())
_BLOCKS = st.lists(st.lists(_GOOD, max_size=8), max_size=8)


def _encoded(encoder: hpack.Encoder, fields: list[tuple[bytes, bytes, bool]], *, huffman: bool) -> bytes:
    return encoder.encode(fields, huffman=huffman)


@given(_BLOCKS, st.booleans(), st.lists(st.integers(0, 4096), max_size=8))
def test_blocks_are_read_as_hpack_reads_them(
    blocks: list[list[tuple[bytes, bytes, bool]]], huffman: bool, sizes: list[int]
) -> None:
    encoder, theirs, ours = hpack.Encoder(), hpack.Decoder(), FieldDecoder()
    for number, fields in enumerate(blocks * 2):  # what comes again is read from the table, and kept whole
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        block = _encoded(encoder, fields, huffman=huffman)
        expected = theirs.decode(block, raw=True)
        found = ours.decode(block)
        assert found == list(expected)
        assert [type(one) is NeverIndexedHeaderTuple for one in found] == [
            not one.indexable for one in expected
        ]


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4))
def test_any_bytes_are_read_as_hpack_reads_them_or_refused(blocks: list[bytes]) -> None:
    theirs, ours = hpack.Decoder(), FieldDecoder()
    for block in blocks:
        try:
            found = ours.decode(block)
        except HPACKError:
            return
        if found[:1] and found[0][0] == MALFORMED:
            continue
        assert found == list(theirs.decode(block, raw=True))


@given(_FIELDS)
@example([(b":method", b"CONNECT")])
@example([(b":method", b"CONNECT"), (b"host", b"")])
def test_requests_that_h2_would_take_are_taken_and_no_others(fields: list[Header]) -> None:
    flags = HeaderValidationFlags(
        is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False
    )
    try:
        list(validate_headers(fields, flags))
        is_good = True
    except ProtocolError:
        is_good = False
    if (b":method", b"CONNECT") in fields and all(name != b":authority" for name, _ in fields):
        is_good = False  # RFC 9113 §8.5; h2 takes a Host instead
    block = hpack.Encoder().encode(fields)
    try:
        read_head(FieldDecoder().decode(block), ended=True)
        was_taken = True
    except ProtocolError:
        was_taken = False
    assert was_taken == is_good


def test_kept_block_is_forgotten_when_the_table_changes() -> None:
    decoder = FieldDecoder()
    assert decoder.decode(b"\x40\x01a\x01b") == [(b"a", b"b")]
    assert decoder.decode(b"\xbe") == decoder.decode(b"\xbe") == [(b"a", b"b")]
    assert decoder.decode(b"\x40\x01c\x01d") == [(b"c", b"d")]
    assert decoder.decode(b"\xbe") == [(b"c", b"d")]


def test_what_is_read_is_the_readers_to_change() -> None:
    decoder = FieldDecoder()
    decoder.decode(b"\x82").append((b"a", b"b"))
    assert decoder.decode(b"\x82") == [(b":method", b"GET")]


def test_list_of_fields_is_bounded() -> None:
    decoder = FieldDecoder()
    decoder.max_header_list_size = 100
    assert decoder.decode(b"\x82" * 3) == [OVERSIZED]
    with pytest.raises(OversizedHeaderListError):
        decoder.decode(b"\x82" * 50)


def test_head_of_too_many_fields_is_not_read_where_the_table_stays_as_it_is() -> None:
    decoder = FieldDecoder()
    decoder.decode(b"\x40\x01a\x01b")
    surplus = b"\x82" + b"".join(b"\x00\x02%02d\x81\xff" % (n % 100) for n in range(200)) + b"\xbe" * 100
    assert len(decoder.decode(surplus)) == decoder.max_fields + 1
    assert decoder.decode(b"\xbe") == [(b"a", b"b")]


@pytest.mark.parametrize("field", [b"\xa0", b"\x00\x01a\x00"])
@pytest.mark.parametrize("start", [b"", b"\x40\x01a\x01b"])
def test_fields_are_counted_up_to_sixteen_times_their_limit(start: bytes, field: bytes) -> None:
    """However small they are: each takes time of the loop, though none is read."""
    decoder = FieldDecoder()
    decoder.max_fields = 100
    assert len(decoder.decode(start + field * 1_500)) == decoder.max_fields + 1
    with pytest.raises(OversizedHeaderListError):
        decoder.decode(start + field * 1_601)


@pytest.mark.parametrize(
    "spoilt", [b"\xbf", b"\x80", b"\x0f\xff\x7f\x01y", b"\x00\x01x\x05y", b"\x00\x01x", b"\x00"]
)
def test_head_of_too_many_fields_that_is_no_hpack_ends_the_connection(spoilt: bytes) -> None:
    decoder = FieldDecoder()
    decoder.decode(b"\x40\x01a\x01b")
    with pytest.raises(HPACKError):
        decoder.decode(b"\x82" * 300 + spoilt)


def test_head_of_too_many_fields_that_go_into_the_table_is_read() -> None:
    decoder = FieldDecoder()
    assert len(decoder.decode(b"\x40\x01a\x01b" * 300)) == decoder.max_fields + 1
    assert decoder.decode(b"\xbe") == [(b"a", b"b")]


_CODED = (b"\x82", b"\xbe", b"\xbf", b"\x00\x01a\x01b", b"\x00\x01A\x01b", b"\x0f\x20\x01b", b"\x10\x00\x00")


@given(st.lists(st.sampled_from(_CODED), max_size=8))
def test_fields_are_counted_as_they_are_read(parts: list[bytes]) -> None:
    decoder = FieldDecoder()
    decoder.max_fields = 2
    decoder.decode(b"\x40\x01a\x01b")
    if b"\xbf" in parts:  # there is no such entry
        with pytest.raises(HPACKError):
            decoder.decode(b"".join(parts))
        return
    found = decoder.decode(b"".join(parts))
    assert len(found) == min(len(parts), 3) or (len(parts) <= 2 and found[0][0] == MALFORMED)


def test_huge_number_is_refused() -> None:
    with pytest.raises(HPACKError, match="integer overflow"):
        FieldDecoder().decode(b"\xff" * 30)


def test_field_that_was_never_to_be_indexed_leaves_so() -> None:
    block = hpack.Encoder().encode([NeverIndexedHeaderTuple(b"x-key", b"s3cret")], huffman=False)
    head = read_head(
        [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", b"a"),
            *FieldDecoder().decode(block),
        ],
        ended=True,
    )
    again = FieldEncoder().encode(head.headers)
    assert again[0] & 0xF0 == 0x10
    assert hpack.Decoder().decode(again, raw=True) == [(b"x-key", b"s3cret")]
