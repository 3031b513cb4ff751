"""Our HPACK encoder against hpack's decoder: any sequence of blocks comes back as it was."""

import hpack
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.field_encoder import FieldEncoder

_NAMES = st.sampled_from(
    [b":path", b":method", b"x-a", b"x-b", b"traceparent", b"authorization", b"cookie", b"content-type"]
)
_VALUES = st.sampled_from([b"", b"/", b"GET", b"1", b"application/grpc"]) | st.binary(max_size=300)
_BLOCK = st.lists(st.tuples(_NAMES, _VALUES), max_size=20)


@given(st.lists(_BLOCK, max_size=30), st.lists(st.sampled_from([0, 64, 200, 4096]), max_size=3))
def test_blocks_round_trip_through_a_foreign_decoder(
    blocks: list[list[tuple[bytes, bytes]]], limits: list[int]
) -> None:
    encoder, decoder = FieldEncoder(), hpack.Decoder(max_header_list_size=1 << 20)
    for number, block in enumerate(blocks):
        if number < len(limits):
            encoder.header_table_size = limits[number]
        assert [tuple(field) for field in decoder.decode(encoder.encode(block), raw=True)] == block


def test_secrets_are_never_indexed_and_passing_values_stay_out_of_the_table() -> None:
    encoder = FieldEncoder()
    first = encoder.encode([(b"authorization", b"Bearer s"), (b"traceparent", b"00-1-2-01"), (b"x-a", b"1")])
    again = encoder.encode([(b"authorization", b"Bearer s"), (b"traceparent", b"00-1-2-01"), (b"x-a", b"1")])
    assert first[0] & 0xF0 == 0x10
    assert b"Bearer s" in again
    assert b"00-1-2-01" in again
    assert b"x-a" not in again


def test_repeated_fields_cost_one_byte() -> None:
    encoder = FieldEncoder()
    block = [(b":method", b"POST"), (b":path", b"/shop.CartService/Get"), (b"postern-callee", b"cart.shop")]
    encoder.encode(block)
    assert len(encoder.encode(block)) == 3


def test_table_resized_many_times_between_blocks_is_announced_by_the_lowest_and_the_last() -> None:
    encoder, decoder = FieldEncoder(), hpack.Decoder()
    encoder.encode([(b"x-a", b"1")])
    for size in (100, 2_000, 50, 3_000, 200, 1_000):
        encoder.header_table_size = size
    block = encoder.encode([(b":method", b"GET")])
    assert block == b"\x3f\x13\x3f\xc9\x07\x82"  # 50, then 1000
    assert decoder.decode(block, raw=True) == [(b":method", b"GET")]


def test_table_resized_and_back_is_announced_all_the_same() -> None:
    """What the peer evicted meanwhile is gone there, so it must be gone here."""
    encoder, decoder = FieldEncoder(), hpack.Decoder()
    decoder.decode(encoder.encode([(b"x-a", b"1")]), raw=True)
    encoder.header_table_size = 0
    encoder.header_table_size = 4_096
    block = encoder.encode([(b"x-a", b"1")])
    assert decoder.decode(block, raw=True) == [(b"x-a", b"1")]
    assert block[:1] == b"\x20"
