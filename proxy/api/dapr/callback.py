"""An HTTP call as OnInvoke of a gRPC app's AppCallback, and the app's answer as one of HTTP. Pure.

What HTTP can't say of the answer travels in `postern-grpc-*` fields, so that InvokeService at the caller's end has it as the app gave it.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, unquote

from msgspec import Struct

from proxy.api.dapr.codes import OK, UNIMPLEMENTED, as_metadata_name, binary, status_of
from proxy.api.dapr.common_pb2 import HTTPExtension, InvokeRequest, InvokeResponse
from proxy.api.dapr.invocation import (
    DETAILS_KEY,
    DROPPED,
    GRPC_HEADER,
    GRPC_KIND,
    GRPC_MESSAGE,
    GRPC_STATUS,
    GRPC_TRAILER,
    GRPC_TYPE,
    METADATA_NAME,
    METADATA_TEXT,
    REQUEST_KIND,
    REQUEST_TYPE,
    Metadata,
)
from proxy.api.server import LocalRequest
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.errors import ANSWERS, DIRECT_INVOKE, HEADER, error_body, invocation_failure
from proxy.wire.deadlines import TIMEOUT
from proxy.wire.http_client import LocalResponse
from sentry.wire import sized_fields
from telemetry.context import grpc_trace_bytes, parse_traceparent

_MESSAGE_SAFE: Final = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")
# gRPC's client writes it itself; what is about the HTTP message and not the call; what `traceparent` and `grpc-timeout` are told in.
_NO_METADATA: Final = frozenset(
    {
        "user-agent",
        "te",
        "expect",
        "grpc-trace-bin",
        REQUEST_TYPE.decode(),
        REQUEST_KIND.decode(),
        TIMEOUT.decode(),
    }
)
_VERBS: Final = frozenset(HTTPExtension.Verb.keys())
_CAUSES: Final = frozenset(cause.value for cause in Cause)
_HINT: Final = (
    "the app speaks gRPC and does not implement this method in AppCallback/OnInvoke, which InvokeService and HTTP calls through Dapr's API "
    "reach it by; its own gRPC services are called with the metadata dapr-app-id"
)


class UnknownVerbError(ValueError):
    """A verb of HTTP that OnInvoke has no name for."""


class Ended(Struct, frozen=True, kw_only=True):
    """How OnInvoke ended. response: None unless `code` is OK."""

    code: int
    text: str = ""
    response: InvokeResponse | None = None
    initial: Metadata = ()
    trailing: Metadata = ()


def on_invoke(request: LocalRequest) -> tuple[InvokeRequest, Metadata]:
    """What to call OnInvoke with. Raises UnknownVerbError."""
    path, _, query = request.target.partition("?")
    named = dict(request.headers)
    kind = named.get(REQUEST_KIND if REQUEST_TYPE in named else b"content-type", b"").decode("latin-1")
    message = InvokeRequest(method=unquote(path.lstrip("/")), content_type=kind)
    message.data.value = request.body
    message.data.type_url = unquote(named.get(REQUEST_TYPE, b"").decode("latin-1"))
    if request.method not in _VERBS:
        raise UnknownVerbError(f"OnInvoke can't carry the verb {request.method}")
    if request.method != "NONE":
        message.http_extension.CopyFrom(HTTPExtension(verb=request.method, querystring=query))
    return message, tuple(_metadata(request.headers))


def _metadata(headers: Headers) -> Iterator[tuple[str, str | bytes]]:
    for raw, data in headers:
        name, text = raw.decode("latin-1"), data.decode("latin-1")
        context = parse_traceparent(data) if name == "traceparent" else None
        if context is not None:  # Dapr's SDKs read this one of the two
            yield "grpc-trace-bin", grpc_trace_bytes(context)
        if name in _NO_METADATA or not METADATA_NAME.fullmatch(name):
            continue
        if name.endswith("-bin"):
            value = binary(data)
            if value is not None:
                yield as_metadata_name(name), value
        elif METADATA_TEXT.fullmatch(text):
            yield as_metadata_name(name), text


def http_answer(app_id: str, ended: Ended, trace_id: str = "") -> LocalResponse:
    """The HTTP answer for how OnInvoke ended. trace_id: for the words of a failure that is none of the app's."""
    cause = dict(ended.trailing).get(HEADER.decode())
    if cause in _CAUSES:
        return failed(app_id, Cause(cause), ended.text, trace_id)
    fields = [*_fields(ended.initial), (GRPC_STATUS, b"%d" % ended.code), *_trailers(ended.trailing)]
    if ended.code == OK and ended.response is not None:
        data, kind = ended.response.data, ended.response.content_type
        if data.type_url:
            fields.append((GRPC_TYPE, quote(data.type_url, safe=_MESSAGE_SAFE).encode()))
            fields.append((GRPC_KIND, quote(kind, safe=_MESSAGE_SAFE).encode()))
            kind = "application/x-protobuf"
        if kind:
            fields.append((b"content-type", quote(kind, safe=_MESSAGE_SAFE).encode()))
        return LocalResponse(200, tuple(fields), data.value)
    text = f"{ended.text}; {_HINT}" if ended.code == UNIMPLEMENTED else ended.text
    fields.append((GRPC_MESSAGE, quote(text, safe=_MESSAGE_SAFE).encode()))
    told = {"code": ended.code, "message": text, "details": list(_details(ended.trailing))}
    fields.append((b"content-type", b"application/json"))
    return LocalResponse(status_of(ended.code), tuple(fields), json.dumps(told).encode())


def failed(app_id: str, cause: Cause, text: str, trace_id: str) -> LocalResponse:
    """A failure that is none of the app's, in Dapr's words."""
    body = error_body(DIRECT_INVOKE, invocation_failure(app_id, text), trace_id)
    mark = (HEADER, cause.value.encode())
    return LocalResponse(ANSWERS[cause].dapr_status, ((b"content-type", b"application/json"), mark), body)


def _fields(metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[Header]:
    """Metadata as fields of the answer; texts are ASCII (gRPC over HTTP/2), others are left out."""
    for name, value in metadata:
        if isinstance(value, bytes):
            yield GRPC_HEADER + name.encode(), b64encode(value)
        elif name not in DROPPED and not name.startswith("postern-") and METADATA_TEXT.fullmatch(value):
            yield (f"dapr-{name}" if name.startswith("grpc-") else name).encode(), value.encode("ascii")


def _trailers(metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[Header]:
    for name, value in metadata:
        if name.startswith("postern-"):
            continue
        if isinstance(value, bytes):
            yield GRPC_TRAILER + name.encode(), b64encode(value)
        elif METADATA_TEXT.fullmatch(value):
            yield GRPC_TRAILER + name.encode(), value.encode("ascii")


def _details(trailing: Metadata) -> Iterator[dict[str, str]]:
    """The details of a google.rpc.Status: what each is, and its bytes in base64."""
    status = dict(trailing).get(DETAILS_KEY)
    if not isinstance(status, bytes):
        return
    try:
        for number, packed in sized_fields(status):
            if number == 3:
                parts = dict(sized_fields(packed))
                value = b64encode(parts.get(2, b"")).decode()
                yield {"@type": parts.get(1, b"").decode("utf-8", "replace"), "value": value}
    except ValueError:
        return
