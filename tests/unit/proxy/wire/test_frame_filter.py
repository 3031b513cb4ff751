"""What passes the frame filter, what it takes out, and where floods end."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract.engine import Limits
from proxy.wire.frame_filter import PREFACE, Bucket, FloodError, FrameFilter, GoAway, goaway_frame
from tests.conformance.frames import (
    END_HEADERS,
    END_STREAM,
    Code,
    Kind,
    frame,
    goaway,
    reset,
    settings,
    window,
)

LIMITS = Limits(resets_per_s=10, resets_burst=20, control_per_s=10, control_burst=30, continuations=4)


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_filter(clock: Clock | None = None, *, server: bool = False) -> FrameFilter:
    """A filter whose time stands still."""
    return FrameFilter(LIMITS, clock or Clock(), server=server)


def fed(made: FrameFilter, pieces: list[bytes]) -> bytes:
    """What the filter passes on of all pieces, with what it leaves for later of each."""
    passed = b""
    for piece in pieces:
        passed += made.feed(piece)
        while made.pending:
            passed += made.feed(made.pending)
    return passed


def meant(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of frames, those of a body as one: what a reader understands, however they were cut."""
    frames: list[tuple[int, int, int, bytes]] = []
    while data:
        length = int.from_bytes(data[:3], "big")
        kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9], "big")
        payload, data = data[9 : 9 + length], data[9 + length :]
        if kind == Kind.DATA and frames and frames[-1][:3] == (kind, 0, stream):
            payload = frames.pop()[3] + payload
        frames.append((kind, flags, stream, payload))
    return frames


def test_feed_small_frames_of_a_body_pass_as_few() -> None:
    events = b"".join(frame(Kind.DATA, 0, 1, b"%04d" % n) for n in range(10_000))
    passed = fed(make_filter(), [events + frame(Kind.DATA, END_STREAM, 1, b"end")])
    body = b"".join(b"%04d" % n for n in range(10_000)) + b"end"
    assert meant(passed) == [(Kind.DATA, END_STREAM, 1, body)]
    assert len(passed) < len(body) + 9 * 100


def test_feed_small_frames_are_cut_into_pieces_for_turns() -> None:
    made = make_filter()
    made.feed(b"".join(frame(Kind.DATA, 0, stream, b"x") for stream in range(1, 201, 2)))
    assert len(made.pending) > 50 * 10  # each costs h2 as much as a large one
    made = make_filter()
    made.feed(frame(Kind.DATA, 0, 1, b"x") * 2_000)
    assert len(made.pending) > 1_000 * 10


def test_feed_frames_of_two_bodies_stay_apart() -> None:
    mixed = b"".join(frame(Kind.DATA, 0, stream, b"x") for stream in (1, 1, 3, 1, 3, 3))
    assert meant(fed(make_filter(), [mixed])) == meant(mixed)


def test_feed_a_padded_frame_stays_alone() -> None:
    padded = frame(Kind.DATA, 8, 1, b"\x01x\x00")
    between = frame(Kind.DATA, 0, 1, b"y")
    assert make_filter().feed(between + padded + between) == between + padded + between


def test_feed_golden_frames_pass_byte_for_byte() -> None:
    data = (
        bytes.fromhex("000006040000000000000300000064")  # SETTINGS MAX_CONCURRENT_STREAMS=100
        + bytes.fromhex("000001010500000001" + "82")  # HEADERS END_STREAM END_HEADERS, :method GET
        + bytes.fromhex("00000500010000000368656c6c6f")  # DATA END_STREAM "hello"
        + bytes.fromhex("0000040800000000000000ffff")  # WINDOW_UPDATE
        + bytes.fromhex("000008060100000000" + "0011223344556677")  # PING ACK
    )
    assert make_filter().feed(data) == data


def test_feed_goaway_is_taken_out_and_read() -> None:
    made = make_filter()
    debug = frame(Kind.GOAWAY, payload=(7).to_bytes(4, "big") + (11).to_bytes(4, "big") + b"why")
    ping = frame(Kind.PING, 0, 0, bytes(8))
    assert made.feed(ping + debug + ping) == ping + ping
    assert made.goaway == GoAway(7, 11)


def test_goaway_frame_is_what_the_filter_reads() -> None:
    made = make_filter()
    assert made.feed(goaway_frame(2**31 - 1, 0)) == b""
    assert made.goaway == GoAway(2**31 - 1, 0)


def test_feed_reserved_bit_of_the_last_stream_is_ignored() -> None:
    made = make_filter()
    made.feed(frame(Kind.GOAWAY, payload=b"\x80\x00\x00\x05\x00\x00\x00\x00"))
    assert made.goaway == GoAway(5, 0)


FRAMES = st.lists(
    st.sampled_from(
        [
            frame(Kind.DATA, 0, 1, b"x" * 300),
            frame(Kind.DATA, END_STREAM, 1),
            frame(Kind.DATA, 0, 3, PREFACE),
            frame(Kind.HEADERS, END_HEADERS, 1, b"\x82"),
            frame(Kind.HEADERS, 0, 1, b"\x82") + frame(Kind.CONTINUATION, END_HEADERS, 1, b"\x84"),
            frame(Kind.PING, 0, 0, bytes(8)),
            settings({}),
            window(0, 1),
            goaway(3),
            goaway(1),
            reset(1),
            frame(0xF0, 0, 0, b"what"),
        ]
    ),
    max_size=20,
)


@given(FRAMES, st.booleans(), st.data())
def test_feed_any_split_passes_the_same_bytes_and_goaway(
    frames: list[bytes], server: bool, data: st.DataObject
) -> None:
    stream = (PREFACE if server else b"") + b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole, split = make_filter(server=server), make_filter(server=server)
    passed = fed(whole, [stream])
    prefix = len(PREFACE) if server else 0
    assert meant(fed(split, pieces)[prefix:]) == meant(passed[prefix:])
    assert split.goaway == whole.goaway
    assert split.block_at == whole.block_at
    assert passed[:prefix] == stream[:prefix]
    assert meant(passed[prefix:]) == meant(b"".join(f for f in frames if f[3] != Kind.GOAWAY))


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_feed_garbage_ends_in_bytes_or_a_flood(pieces: list[bytes]) -> None:
    made = make_filter()
    with suppress(FloodError):
        assert len(fed(made, pieces)) <= sum(map(len, pieces))


FLOODS = [
    ("reset", reset(1)),
    ("ping", frame(Kind.PING, 0, 0, bytes(8))),
    ("ping", frame(Kind.PING, 1, 0, bytes(8))),
    ("settings", settings({})),
    ("priority", frame(Kind.PRIORITY, 0, 1, bytes(5))),
    ("empty-data", frame(Kind.DATA, 0, 1)),
    ("window-update", window(0, 1)),
    ("unknown", frame(0xF0)),
]


@pytest.mark.parametrize(("kind", "data"), FLOODS)
def test_feed_beyond_the_burst_is_read_later_then_sent_away_then_a_flood(kind: str, data: bytes) -> None:
    burst = LIMITS.control_burst
    made = make_filter()
    assert made.feed(data * burst) == data * burst
    assert (made.take_pause(), made.take_strain()) == (0.0, "")
    made.feed(data * (burst // 2))
    assert made.take_pause() == pytest.approx(1.0)
    assert made.take_strain() == ""
    made.feed(data * (burst // 2))
    assert (made.take_strain(), made.take_strain()) == (kind, "")
    with pytest.raises(FloodError) as caught:
        made.feed(data)
    assert (caught.value.kind, caught.value.code) == (kind, Code.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(("kind", "data"), FLOODS)
def test_own_app_may_send_ten_times_as_much(kind: str, data: bytes) -> None:
    made = FrameFilter(LIMITS, Clock(), server=False, own=True)
    made.feed(data * LIMITS.control_burst * 10)
    assert (made.take_pause(), made.take_strain()) == (0.0, "")


def test_feed_reset_of_each_call_is_never_counted() -> None:
    made = make_filter(server=True)
    made.feed(PREFACE)
    for _ in range(1_000):
        made.feed(frame(Kind.HEADERS, END_HEADERS, 1, b"\x82") + reset(1))
    assert (made.take_pause(), made.take_strain()) == (0.0, "")


@pytest.mark.parametrize("data", [frame(Kind.PING, 0, 0, bytes(8)), settings({}), window(0, 1)])
def test_feed_control_frame_for_each_piece_of_data_is_never_counted(data: bytes) -> None:
    made = make_filter()
    for _ in range(1_000):
        made.feed(frame(Kind.DATA, 0, 1, b"x") + data)
    for _ in range(1_000):
        made.sent_data(1)
        made.feed(data)
    assert (made.take_pause(), made.take_strain()) == (0.0, "")


def test_feed_padding_earns_nothing() -> None:
    made = make_filter()
    padded = frame(Kind.DATA, 0x8, 1, b"\x09" + bytes(9))
    made.feed(padded * 1_000)
    with pytest.raises(FloodError):
        made.feed(frame(Kind.PING, 0, 0, bytes(8)) * (2 * LIMITS.control_burst + 1))


def test_what_calls_and_data_earn_is_bounded() -> None:
    made = make_filter()
    made.feed(frame(Kind.DATA, 0, 1, b"x") * 10_000)
    with pytest.raises(FloodError):
        made.feed(frame(Kind.PING, 0, 0, bytes(8)) * (3 * LIMITS.control_burst + 1))


@pytest.mark.parametrize(("kind", "data"), FLOODS)
def test_feed_sustained_rate_is_allowed_for_ever(kind: str, data: bytes) -> None:
    clock = Clock()
    made = make_filter(clock)
    for _ in range(200):
        made.feed(data)
        clock.now += 0.11


def test_feed_empty_data_that_ends_a_stream_is_never_counted() -> None:
    made = make_filter()
    data = frame(Kind.DATA, END_STREAM, 1)
    assert fed(made, [data * 1_000]) == data * 1_000


def test_count_reset_has_a_budget_of_its_own() -> None:
    made = make_filter()
    made.feed(reset(1) * 10)
    for _ in range(LIMITS.resets_burst):
        made.count_reset()
    assert (made.take_pause(), made.take_strain()) == (0.0, "")
    for _ in range(LIMITS.resets_burst):
        made.count_reset()
    assert (made.take_pause() > 0, made.take_strain()) == (True, "reset")
    with pytest.raises(FloodError):
        made.count_reset()


def test_sent_data_earns_window_updates() -> None:
    made = make_filter()
    made.feed(window(0, 1) * 2 * LIMITS.control_burst)
    made.sent_data(1)
    made.feed(window(0, 1) * 11)
    with pytest.raises(FloodError):
        made.feed(window(0, 1))


def test_count_empty_counts_with_control_frames() -> None:
    made = make_filter()
    made.feed(frame(Kind.PING, 0, 0, bytes(8)) * (2 * LIMITS.control_burst - 1))
    made.count_empty()
    with pytest.raises(FloodError) as caught:
        made.count_empty()
    assert caught.value.kind == "empty-data"


def test_feed_continuations_up_to_the_limit_pass() -> None:
    part = frame(Kind.CONTINUATION, 0, 1, b"x")
    last = frame(Kind.CONTINUATION, END_HEADERS, 1, b"x")
    made = make_filter()
    for _ in range(3):  # each block is counted anew
        data = frame(Kind.HEADERS, 0, 1, b"x") + part * LIMITS.continuations + last
        assert made.feed(data) == data
    with pytest.raises(FloodError) as caught:
        made.feed(frame(Kind.HEADERS, 0, 1, b"x") + part * (LIMITS.continuations + 1))
    assert caught.value.kind == "continuation"


def test_block_at_is_set_while_a_header_block_is_open() -> None:
    clock = Clock()
    made = make_filter(clock)
    made.feed(frame(Kind.HEADERS, 0, 1, b"x"))
    assert made.block_at == clock.now
    made.feed(frame(Kind.CONTINUATION, END_HEADERS, 1, b"x"))
    assert made.block_at is None


def test_feed_frame_larger_than_announced_is_refused_by_its_head_alone() -> None:
    made = make_filter()
    with pytest.raises(FloodError) as caught:
        made.feed((16_385).to_bytes(3, "big") + bytes((Kind.DATA, 0, 0, 0, 0, 1)))
    assert (caught.value.kind, caught.value.code) == ("frame-size", Code.FRAME_SIZE_ERROR)
    assert make_filter().feed(frame(Kind.DATA, 0, 1, bytes(16_384)))


def test_feed_short_goaway_is_refused() -> None:
    with pytest.raises(FloodError) as caught:
        make_filter().feed(frame(Kind.GOAWAY, payload=b"1234567"))
    assert caught.value.code == Code.FRAME_SIZE_ERROR


def test_bucket_refills_up_to_its_burst() -> None:
    clock = Clock()
    bucket = Bucket(2.0, 3, clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 1_000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("text", [b"HTTP/1.1 400 Bad Request\r\n", b"<!DOCTYPE HTML>"])
def test_feed_text_instead_of_frames_is_told_as_another_protocol(text: bytes) -> None:
    with pytest.raises(FloodError, match="does not speak HTTP/2, which gRPC needs"):
        make_filter().feed(text)
