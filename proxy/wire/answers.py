"""Replies on the wire: HTTP or gRPC form, with the engine's detail put in; and the few answers given before any decision."""

import json
import logging
import math
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote

from msgspec.structs import replace

from proxy import errors
from proxy.contract.engine import HopSpan, ListenerSpec
from proxy.contract.head import Headers
from proxy.contract.plan import DETAIL, REFUSED, TRACE_ID, Cause, Decide, Decision, Labels, Plan, Reply
from proxy.contract.recording import RecordingHead
from proxy.wire.grpc_web import trailer_frame
from proxy.wire.request_info import with_trace
from proxy.wire.streams import Downstream

_LOG = logging.getLogger("postern.deciding")
_INTERNAL = 13  # of gRPC
_T = TypeVar("_T")
_FOR_PAGES = (b"access-control-allow-origin", b"access-control-expose-headers", b"vary")  # whatever the form
IN_ANY_FORM = frozenset({errors.HEADER, errors.DETAILS, *_FOR_PAGES})
"""Fields of a reply that an answer has in HTTP, gRPC and gRPC-Web alike."""
_GRPC_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if c != 0x25)


def send(
    down: Downstream,
    reply: Reply,
    detail: str,
    span: HopSpan,
    *,
    grpc: bool,
    head: bool,
    web: bytes = b"",
    told: tuple[Headers, float | None] | None = None,
) -> tuple[int | None, int]:
    """Answer a call; returns the gRPC code where it was one, and the bytes of the body. gRPC errors are trailers-only (gRPC over HTTP/2,
    Responses).

    web: the content type of a call of gRPC-Web, else empty. Its trailers are a body: a page may not read all fields of a head.
    told: what a gate says beside: fields, which come in the place of others of their names, and in how many seconds to come again, or None.
    """
    for_pages = tuple(field for field in reply.headers if field[0] in _FOR_PAGES)
    if web:
        frame = trailer_frame((*grpc_trailers(reply, detail, span), *_told_grpc(told)), web)
        named = tuple(field for field in reply.headers if field[0] == errors.HEADER)
        length = (b"content-length", b"%d" % len(frame))
        down.respond(200, ((b"content-type", web), length, *named, *for_pages), end=False)
        down.send(frame)
        down.finish(())
        return reply.grpc_code, len(frame)
    if grpc:
        trailers = (*grpc_trailers(reply, detail, span), *_told_grpc(told))
        down.respond(200, ((b"content-type", b"application/grpc"), *trailers, *for_pages), end=True)
        return reply.grpc_code, 0
    body = reply.body.replace(
        DETAIL.encode(), json.dumps(detail, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
    )
    body = body.replace(TRACE_ID.encode(), span.traceparent[3:35])
    fields = reply.headers
    if told is not None:
        names = {name for name, _ in told[0]}
        fields = (*(field for field in fields if field[0] not in names), *told[0])
    headers = dated((*fields, (b"traceparent", span.traceparent), (b"content-length", b"%d" % len(body))))
    if head or not body:
        down.respond(reply.status, headers, end=True)
        return None, 0
    down.respond(reply.status, headers, end=False)
    down.send(body)
    down.finish(())
    return None, len(body)


def _told_grpc(told: tuple[Headers, float | None] | None) -> Headers:
    """The same in trailers, where gRPC clients that retry look for their own field (gRFC A6)."""
    if told is None:
        return ()
    again = () if told[1] is None else ((b"grpc-retry-pushback-ms", b"%d" % math.ceil(told[1] * 1e3)),)
    return (*told[0], *again)


def dated(headers: Headers) -> Headers:
    """With a Date where there is none (RFC 9110 §6.6.1)."""
    if any(name == b"date" for name, _ in headers):
        return headers
    return (*headers, (b"date", now()))


def now() -> bytes:
    """The present second as a Date has it."""
    return _date(int(time.time()))


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")


def grpc_trailers(reply: Reply, detail: str, span: HopSpan) -> Headers:
    """How a gRPC call ends with a reply of ours."""
    text = reply.grpc_message.replace(DETAIL, detail)
    message = quote(text, safe=_GRPC_SAFE, errors="replace").encode("ascii")
    named = dict(reply.headers)
    details = b64decode(named.get(errors.DETAILS, b"") + b"==")
    details = with_trace(details, reply.grpc_code, text, span.traceparent[3:35])
    return (
        (b"grpc-status", b"%d" % reply.grpc_code),
        (b"grpc-message", message),
        (b"traceparent", span.traceparent),
        (errors.HEADER, named.get(errors.HEADER, b"")),
        (errors.DETAILS, b64encode(details).rstrip(b"=")),
    )


def end_grpc(down: Downstream, reply: Reply, detail: str, span: HopSpan, web: bytes) -> None:
    """End a gRPC answer that has begun with a reply of ours. web: as of `send`."""
    trailers = grpc_trailers(reply, detail, span)
    if web:
        down.send(trailer_frame(trailers, web))
    down.finish(() if web else trailers)


def unlabelled(listener: str) -> Labels:
    """What telemetry says of a call that no decider saw."""
    return Labels(direction="inbound" if listener == "peer" else "outbound", sampling=REFUSED)


def bad_request(reason: str, listener: ListenerSpec, headers: Headers) -> Reply:
    """400: a head with these fields is refused."""
    made = errors.reply(Cause.BAD_REQUEST, unlabelled(listener.name), f"bad request: {reason}")
    return replace(made, headers=(*made.headers, *listener.for_pages(headers)))


def unreadable(text: str, traceparent: bytes) -> tuple[Headers, bytes]:
    """Fields and body of an answer to a request whose head can't be read."""
    trace_id = traceparent[3:35].decode("ascii")
    body = errors.error_body(errors.ANSWERS[Cause.BAD_REQUEST].code, text, trace_id)
    headers: Headers = (
        (b"content-type", b"application/json"),
        (errors.HEADER, Cause.BAD_REQUEST.value.encode()),
    )
    if traceparent:
        headers = (*headers, (b"traceparent", traceparent))
    return dated((*headers, (b"content-length", b"%d" % len(body)))), body


def timed_out(decision: Decision, listener: ListenerSpec, headers: Headers) -> Reply:
    """The answer to a call that sent these fields, whose deadline passed before this decision was there: as it would be after it."""
    if isinstance(decision, Plan):
        return decision.local_replies[Cause.TIMEOUT]
    if isinstance(decision, Reply):
        return decision
    labels = decision.then.labels
    text = "the call's deadline passed before its callee was found"
    made = errors.reply(Cause.TIMEOUT, labels, text, surface=labels.surface, callee=labels.dst)
    return replace(made, headers=(*made.headers, *listener.for_pages(headers)))


def decided(decide: Decide, head: RecordingHead) -> Decision:
    """What a decider says. Where it fails, which is a fault of ours, that call fails, nobody else's, and nothing is kept of it."""
    try:
        return decide(head)
    except Exception:  # noqa: BLE001 - the boundary: one call fails, not its connection, and it does not wait for ever
        listener = head.whole().listener
        _LOG.exception("no decision about a call by %s", listener)
    text = "this proxy failed to decide about the call, see its log"
    return replace(
        errors.reply(Cause.UNSUPPORTED, unlabelled(listener), text, status=500), grpc_code=_INTERNAL
    )


def recalled(find: Callable[[], _T]) -> _T | None:
    """What is known of heads or paths like the one that `find` looks for.

    None, too, where telling them apart fails, which is a fault of ours: the decider is asked then, and fails that call alone.
    """
    try:
        return find()
    except Exception:  # noqa: BLE001 - the boundary, as above
        _LOG.exception("no class for a call's head")
        return None


def is_grpc(headers: Headers) -> bool:
    """Whether an answer is gRPC's; gRPC-Web's is HTTP."""
    kind = next((data for name, data in headers if name == b"content-type"), b"").lower()
    return kind.startswith(b"application/grpc") and kind[16:20] != b"-web"


def grpc_code(headers: Headers) -> int | None:
    """The grpc-status among trailers, or None."""
    for name, data in headers:
        if name == b"grpc-status":
            return int(data) if data.isdigit() and len(data) <= 3 else 2
    return None
