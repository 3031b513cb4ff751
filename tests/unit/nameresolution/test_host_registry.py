from __future__ import annotations

import json

import pytest

from nameresolution.host_registry import Entry, format_entry, parse_entry

ENTRY = Entry(
    app_id="cart",
    instance="a1",
    peer_port=50002,
    grpc_services=("shop.CartService",),
    started_at=1.5,
    extra={"zone": "b"},
)


def test_format_and_parse_are_inverses() -> None:
    assert parse_entry(format_entry(ENTRY)) == ENTRY


def test_parse_takes_defaults_and_leaves_unknown_fields_out() -> None:
    entry = parse_entry(b'{"app_id":"cart","instance":"a1","peer_port":1,"from_the_future":[1]}')
    assert entry == Entry(app_id="cart", instance="a1", peer_port=1)


@pytest.mark.parametrize(
    "change",
    [
        {"peer_port": "50002"},
        {"peer_port": True},
        {"app_id": 3},
        {"grpc_services": "shop"},
        {"grpc_services": [1]},
        {"extra": {"a": 1}},
        {"extra": []},
        {"serving": 1},
        {"started_at": "now"},
    ],
)
def test_parse_refuses_fields_of_another_type(change: dict[str, object]) -> None:
    assert parse_entry(json.dumps(json.loads(format_entry(ENTRY)) | change).encode()) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"app_id":"cart"}', b"\xff\xfe"])
def test_parse_refuses_what_is_no_entry(data: bytes) -> None:
    assert parse_entry(data) is None
