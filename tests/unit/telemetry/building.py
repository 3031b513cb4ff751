"""Calls and spans as tests want them: one plain example, changed where a test says so."""

import logging
from typing import Any

from telemetry.context import SpanContext
from telemetry.logs import Line, Logger
from telemetry.report import AttemptNote, Call
from telemetry.spans import Span

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SECOND = 1_000_000_000
BEGAN = 1_700_000_000 * SECOND
SAMPLED = SpanContext(TRACE, 0xA1, 0, True)
UNSAMPLED = SpanContext(TRACE, 0xA1, 0, False)


def a_call(**changes: Any) -> Call:
    """A sampled GET from cart to checkout that the caller's proxy saw succeed in 2 ms."""
    facts: dict[str, Any] = {
        "direction": "outbound",
        "protocol": "http",
        "surface": "dapr",
        "src": "cart",
        "dst": "checkout",
        "src_namespace": "shop",
        "dst_namespace": "shop",
        "verb": "GET",
        "path": "/orders/1",
        "status": 200,
        "grpc_code": None,
        "cause": None,
        "context": SAMPLED,
        "started_ns": BEGAN,
        "head_ns": BEGAN + 1_500_000,
        "ended_ns": BEGAN + 2_000_000,
        "endpoint": "10.0.0.7:5000",
    }
    return Call(**{**facts, **changes})


def a_grpc_call(**changes: Any) -> Call:
    """As `a_call`, a proxied unary gRPC call."""
    facts = {
        "protocol": "grpc",
        "surface": "own",
        "verb": "POST",
        "path": "/shop.Checkout/Pay",
        "grpc_code": 0,
        "head_ns": BEGAN + 1_000_000,
    }
    return a_call(**{**facts, **changes})


def an_attempt(**changes: Any) -> AttemptNote:
    """An attempt of 1 ms that answered 200."""
    facts: dict[str, Any] = {
        "endpoint": "10.0.0.7:5000",
        "started_ns": BEGAN,
        "ended_ns": BEGAN + 1_000_000,
        "status": 200,
    }
    return AttemptNote(**{**facts, **changes})


def a_span(**changes: Any) -> Span:
    """A CLIENT span of cart towards checkout."""
    facts: dict[str, Any] = {
        "context": SAMPLED,
        "name": "CallLocal/checkout/Orders",
        "kind": "CLIENT",
        "start_ns": BEGAN,
        "end_ns": BEGAN + 2_000_000,
        "service": "cart",
        "remote_service": "checkout",
        "remote_host": "10.0.0.7",
        "remote_port": 5000,
        "attributes": (("dapr.protocol", "http"),),
    }
    return Span(**{**facts, **changes})


class KeptLines(logging.Handler):
    """Makes loggers whose lines are kept in `lines` and written nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record, Line)
        self.lines.append(
            {"event": record.msg, "level": record.levelname, "scope": record.name, **record.fields}
        )

    def get(self, scope: str) -> Logger:
        log = logging.Logger(scope)  # outside the tree, so that nothing else hears it
        log.addHandler(self)
        return Logger(log)
