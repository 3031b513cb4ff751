"""Which offers of HTTP/2 are taken; tests/conformance/test_h2c.py has them on the wire."""

import pytest

from proxy.contract.engine import Limits
from proxy.wire.h2c import Offer, offered
from proxy.wire.head_scan import RequestStart, scan_request


def start(more: str, line: str = "GET /a HTTP/1.1") -> RequestStart:
    head = f"{line}\r\nHost: b\r\nConnection: Upgrade, HTTP2-Settings\r\n{more}\r\n"
    scanned = scan_request(head.encode(), Limits())
    assert isinstance(scanned, RequestStart)
    return scanned


def test_sound_offer_is_read() -> None:
    fields = "Upgrade: foo, H2C\r\nHTTP2-Settings: AAMAAABkAAQCAAAA\r\nTE: gzip\r\nX: y\r\n"
    offer = offered(start(fields))
    assert isinstance(offer, Offer)
    assert offer.settings == b"\0\3\0\0\0\x64\0\4\2\0\0\0"
    assert offer.fields() == [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"b"),
        (b":path", b"/a"),
        (b"x", b"y"),
    ]


def test_offer_may_have_no_settings_and_an_empty_body() -> None:
    offer = offered(start("Upgrade: h2c\r\nHTTP2-Settings:\r\nContent-Length: 0\r\n", "POST /a HTTP/1.1"))
    assert offer is not None
    assert offer.settings == b""


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "HTTP2-Settings:\r\n" * 2,
        f"HTTP2-Settings: {'AAMAAABk' * 33}\r\n",
        "HTTP2-Settings: AAMAAABkAA\r\n",
        "HTTP2-Settings: AAMAAA+k\r\n",
        "HTTP2-Settings: AAIAAAAC\r\n",  # ENABLE_PUSH: 2
        "HTTP2-Settings: AASAAAAA\r\n",  # INITIAL_WINDOW_SIZE: 2^31
        "HTTP2-Settings: AAUAAAAA\r\n",  # MAX_FRAME_SIZE: 0
    ],
)
def test_unsound_settings_are_no_offer(settings: str) -> None:
    assert offered(start(f"Upgrade: h2c\r\n{settings}")) is None


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("GET /a HTTP/1.1", "Upgrade: h2\r\n"),
        ("GET /a HTTP/1.1", "Upgrade: h2c, websocket\r\n"),
        ("POST /a HTTP/1.1", "Upgrade: h2c\r\nContent-Length: 1\r\n"),
        ("POST /a HTTP/1.1", "Upgrade: h2c\r\nTransfer-Encoding: chunked\r\n"),
        ("GET /a HTTP/1.0", "Upgrade: h2c\r\n"),
        ("GET http://b/a HTTP/1.1", "Upgrade: h2c\r\n"),
        ("CONNECT b:80 HTTP/1.1", "Upgrade: h2c\r\n"),
    ],
)
def test_other_requests_offer_nothing(line: str, fields: str) -> None:
    assert offered(start(f"HTTP2-Settings: AAMAAABk\r\n{fields}", line)) is None
