"""gRPC's message framing."""

import pytest

from proxy.api.daprd.framing import Messages, WireError, ending, framed, message_of


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1_000])
def test_messages_come_whole_however_they_are_cut(size: int) -> None:
    sent = framed(b"one") + framed(b"") + framed(b"x" * 300)
    messages = Messages(300)
    found = [
        message
        for start in range(0, len(sent), size)
        for message in messages.feed(sent[start : start + size])
    ]
    assert found == [b"one", b"", b"x" * 300]
    assert messages.is_between


@pytest.mark.parametrize(("sent", "code"), [(b"\x01\x00\x00\x00\x01x", 12), (b"\x00\x00\x00\x01\x2d", 8)])
def test_compressed_and_oversized_messages_are_refused(sent: bytes, code: int) -> None:
    with pytest.raises(WireError) as refused:
        list(Messages(300).feed(sent))
    assert refused.value.code == code


def test_text_of_a_status_is_escaped_and_read_again() -> None:
    text = "50 % of ümläuts\nand more"
    assert ending(13, text)[1][1].isascii()
    assert message_of(ending(13, text)) == text
    assert ending(0) == ((b"grpc-status", b"0"),)
