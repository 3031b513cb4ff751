"""Messages taken out of bodies, within bounds."""

import gzip
import zlib

import pytest

from proxy.api.otlp.answers import Refusal
from proxy.api.otlp.unpacking import MAX_BYTES, unframed, unpacked


def frame(message: bytes, *, is_packed: bool = False) -> bytes:
    return bytes([is_packed]) + len(message).to_bytes(4, "big") + message


def test_message_is_taken_out_of_its_frame() -> None:
    assert unframed(frame(b"abc"), b"gzip") == b"abc"
    assert unframed(frame(gzip.compress(b"abc"), is_packed=True), b"gzip") == b"abc"
    assert unframed(frame(b""), b"") == b""


@pytest.mark.parametrize("body", [b"", b"\0\0\0", frame(b"abc")[:-1], frame(b"a") * 2, b"\x02\0\0\0\0"])
def test_what_is_no_single_message_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        unframed(body, b"")
    assert caught.value.code == 3


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"abc", b""),
        (b"abc", b"identity"),
        (gzip.compress(b"abc"), b" GZIP "),
        (zlib.compress(b"abc"), b"deflate"),
    ],
    ids=["none", "identity", "gzip", "deflate"],
)
def test_encodings(body: bytes, encoding: bytes) -> None:
    assert unpacked(body, encoding) == b"abc"


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (b"abc", b"br", 12),
        (b"abc", b"gzip", 3),
        (gzip.compress(b"abc")[:-3], b"gzip", 3),
        (gzip.compress(bytes(MAX_BYTES + 1)), b"gzip", 8),
        (gzip.compress(bytes(5 * MAX_BYTES)), b"gzip", 8),
    ],
    ids=["unknown", "no-gzip", "cut-short", "just-too-large", "bomb"],
)
def test_what_can_not_be_unpacked_is_refused(body: bytes, encoding: bytes, code: int) -> None:
    with pytest.raises(Refusal) as caught:
        unpacked(body, encoding)
    assert caught.value.code == code


def test_largest_request_is_taken() -> None:
    assert len(unpacked(gzip.compress(bytes(MAX_BYTES)), b"gzip")) == MAX_BYTES
