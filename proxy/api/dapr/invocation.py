"""InvokeService as an HTTP call of the callee, and the answer to that as one of gRPC. Pure.

What the sidecars themselves answer carries `postern-error` and becomes Internal, whatever it was, as Dapr has it; the text tells.
The refusal of a circuit breaker alone is Unknown.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, unquote

from msgspec import Struct
from msgspec.structs import replace

from proxy.api.dapr.codes import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNKNOWN,
    as_metadata_name,
    code_of,
    phrase_of,
)
from proxy.api.dapr.common_pb2 import HTTPExtension, InvokeResponse
from proxy.api.dapr.runtime_pb2 import InvokeServiceRequest
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.errors import DETAILS, HEADER, invocation_failure
from proxy.wire.http_client import LocalResponse
from proxy.wire.request_info import with_trace
from proxy.wire.status_details import status_details
from telemetry.context import TRACEPARENT, format_traceparent, parse_grpc_trace_bin, parse_traceparent

Metadata = tuple[tuple[str, str | bytes], ...]
_ID: Final = re.compile(r"[!-~]+")
METADATA_NAME: Final = re.compile(r"[a-z0-9_.-]+")
METADATA_TEXT: Final = re.compile(r"[ -~]*")
# What a path and a query may hold (RFC 3986 §3.3, §3.4); `%` stays, as the method may be escaped already.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=-._~"
_QUERY_SAFE: Final = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "#")
# Of the connection or of this call alone (RFC 9110 §7.6.1); what the call has anew; secrets of the API.
DROPPED: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"),
        *("te", "trailer", "proxy-authorization", "proxy-authenticate", "expect", "host", "content-length"),
        *("content-type", "dapr-app-id", "dapr-api-token", "dapr-type-url", "dapr-type-content-type"),
    }
)
_NAMED: Final = 64  # of an app-id that is far too long
_STATUS_KEY: Final = "dapr-http-status"
DETAILS_KEY: Final = DETAILS.decode()
#: Of a request: the type of a packed message (`data.type_url`), percent-encoded, for OnInvoke.
REQUEST_TYPE: Final = b"dapr-type-url"
#: And the content type that its sender gave it, which is application/x-protobuf over HTTP.
REQUEST_KIND: Final = b"dapr-type-content-type"
#: Fields of an answer that a gRPC app gave by OnInvoke (`callback`): what HTTP can't say of it.
GRPC_STATUS, GRPC_MESSAGE, GRPC_TYPE = b"postern-grpc-status", b"postern-grpc-message", b"postern-grpc-type"
GRPC_KIND: Final = (
    b"postern-grpc-content-type"  # of a packed message, which is application/x-protobuf over HTTP
)
GRPC_HEADER: Final = b"postern-grpc-header-"  # binary ones; the others are fields of their own
GRPC_TRAILER: Final = b"postern-grpc-trailer-"
_INVALID: Final = ((HEADER.decode(), Cause.INVALID_ANSWER.value),)
_BREAKER: Final = frozenset({Cause.BREAKER.value, Cause.PROBING.value})
_OF_HTTP_ALONE: Final = frozenset(
    {"dapr-content-type", "dapr-content-length", "dapr-date"}
)  # which a gRPC app did not send


class HttpCall(Struct, frozen=True):
    """What to send to the callee."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Answer(Struct, frozen=True, kw_only=True):
    """What the caller gets: a response where `code` is OK. `initial` is sent before it, or before the status."""

    code: int = OK
    message: str = ""
    initial: Metadata = ()
    trailing: Metadata = ()
    response: InvokeResponse | None = None


def http_call(
    request: InvokeServiceRequest, metadata: Iterable[tuple[str, str | bytes]], head_bytes: int
) -> HttpCall | Answer:
    """The HTTP call that a request of InvokeService asks for, or why there can be none. head_bytes: of what becomes its head.

    Without a verb its method is NONE: that is for apps that speak gRPC, and the callee's proxy knows whether its app does.
    """
    message = request.message
    parts = (request.id, message.method, message.http_extension.querystring, message.content_type)
    if sum(map(len, (*parts, message.data.type_url))) > head_bytes:  # in characters: one is a byte or more
        return _overlong(request.id, head_bytes)
    if not _ID.fullmatch(request.id):
        return failed(request.id, f"invalid app-id {request.id!r}: use letters, digits, '-' or '_'")
    if "?" in message.method or "#" in message.method:
        return failed(
            request.id,
            "the method holds '?' or '#': put a query into http_extension.querystring, and escape what belongs to the path",
        )
    verb = message.http_extension.verb
    if verb == HTTPExtension.CONNECT or verb not in HTTPExtension.Verb.values():
        return failed(
            request.id,
            "unsupported HTTP verb: set http_extension.verb to GET, POST or another one except CONNECT",
        )
    fields = [("dapr-app-id", request.id), *_fields(metadata)]
    kind = "application/x-protobuf" if message.data.type_url else message.content_type
    if kind:
        fields.append(("content-type", _printable(kind)))
    if message.data.type_url:
        fields.append((REQUEST_TYPE.decode(), quote(message.data.type_url, safe="/:")))
        if message.content_type:
            fields.append((REQUEST_KIND.decode(), _printable(message.content_type)))
    return HttpCall(
        HTTPExtension.Verb.Name(verb),
        _target(message.method, message.http_extension.querystring),
        tuple(fields),
        message.data.value,
    )


def _overlong(app_id: str, head_bytes: int) -> Answer:
    text = (
        f"app-id, method, query and content type are longer than {head_bytes} bytes together:"
        " send what is long as data, or raise --read-buffer-size"
    )
    return failed(app_id[:_NAMED], text, code=RESOURCE_EXHAUSTED)


def _target(method: str, query: str) -> str:
    path = "/" + quote(method.lstrip("/"), safe=_PATH_SAFE)
    return f"{path}?{quote(query, safe=_QUERY_SAFE)}" if query else path


def _printable(text: str) -> str:
    return text if METADATA_TEXT.fullmatch(text) else quote(text, safe=_QUERY_SAFE + " ")


def _fields(metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[tuple[str, str]]:
    """The fields of the HTTP request, binary ones in base64; a binary trace becomes a `traceparent` where there is none."""
    pairs = list(metadata)
    for name, value in pairs:
        if isinstance(value, str) and name not in DROPPED and not name.endswith("-bin"):
            yield f"dapr-{name}" if name.startswith("grpc-") else name, value
        elif isinstance(value, bytes) and not name.startswith("grpc-"):
            yield name, b64encode(value).decode("ascii")
    named = dict(pairs)
    trace = named.get("grpc-trace-bin")
    if isinstance(trace, bytes) and "traceparent" not in named:
        context = parse_grpc_trace_bin(b64encode(trace))
        if context is not None:
            yield "traceparent", format_traceparent(context).decode("ascii")


def header_fields(metadata: Iterable[tuple[str, str | bytes]]) -> Headers:
    """Metadata as it came: binary fields in base64."""
    return tuple(
        (name.encode("latin-1"), b64encode(value) if isinstance(value, bytes) else value.encode("utf-8"))
        for name, value in metadata
    )


def answer_to(app_id: str, found: LocalResponse, max_bytes: int) -> Answer:
    """What the caller of InvokeService gets for the answer to its HTTP call. max_bytes: of the message."""
    if any(name == HEADER for name, _ in found.headers):
        return _by_proxy(app_id, found)
    if any(name == GRPC_STATUS for name, _ in found.headers):
        try:
            return _by_grpc_app(app_id, found, max_bytes)
        except ValueError:
            return failed(app_id, "the answer of its proxy says nothing that gRPC could", trailing=_INVALID)
    initial: Metadata = (*_initial(found.headers), (_STATUS_KEY, str(found.status)))
    code = code_of(found.status)
    if code != OK:
        phrase = phrase_of(found.status)
        details = status_details(code, phrase, found.status, found.body)
        return Answer(code=code, message=phrase, initial=initial, trailing=((DETAILS_KEY, details),))
    return _fitting(app_id, _response(found), initial, (), max_bytes)


def _response(found: LocalResponse) -> InvokeResponse:
    type_url = unquote(_first(found.headers, GRPC_TYPE).decode("latin-1"))
    kind = _first(found.headers, GRPC_KIND if type_url else b"content-type").decode("latin-1")
    response = InvokeResponse(content_type=kind)
    response.data.value = found.body
    response.data.type_url = type_url
    return response


def _fitting(
    app_id: str, response: InvokeResponse, initial: Metadata, trailing: Metadata, max_bytes: int
) -> Answer:
    if response.ByteSize() > max_bytes:
        return too_large(app_id, max_bytes)
    return Answer(initial=initial, trailing=trailing, response=response)


def _by_grpc_app(app_id: str, found: LocalResponse, max_bytes: int) -> Answer:
    """A gRPC app's answer, as the app gave it."""
    code = int(_first(found.headers, GRPC_STATUS))
    texts = (pair for pair in _initial(found.headers) if pair[0] not in _OF_HTTP_ALONE)
    initial = (*texts, *_carried(found.headers, GRPC_HEADER))
    trailing = tuple(_carried(found.headers, GRPC_TRAILER))
    if code == OK:
        return _fitting(app_id, _response(found), initial, trailing, max_bytes)
    text = unquote(_first(found.headers, GRPC_MESSAGE).decode("latin-1"))
    return Answer(code=code, message=text, initial=initial, trailing=trailing)


def _carried(headers: Headers, prefix: bytes) -> Iterator[tuple[str, str | bytes]]:
    """The metadata that fields with a prefix of ours carry, without what gRPC can't: another's proxy wrote them. Raises ValueError."""
    for raw, data in headers:
        if raw.startswith(prefix):
            name = raw[len(prefix) :].decode("latin-1")
            if METADATA_NAME.fullmatch(name) is None or (name.startswith("grpc-") and name != DETAILS_KEY):
                continue
            if name.endswith("-bin"):
                yield name, b64decode(data)
            elif METADATA_TEXT.fullmatch(text := data.decode("latin-1")):
                yield name, text


def failed(app_id: str, text: str, *, code: int = INTERNAL, trailing: Metadata = ()) -> Answer:
    """A failure that is none of the app's, in Dapr's words."""
    return Answer(code=code, message=invocation_failure(app_id, text), trailing=trailing)


def too_large(app_id: str, max_bytes: int) -> Answer:
    """The app's answer does not fit."""
    text = f"the answer is larger than {max_bytes} bytes; --max-body-size sets the limit"
    mark = ((HEADER.decode(), Cause.TOO_LARGE.value),)
    return failed(app_id, text, code=RESOURCE_EXHAUSTED, trailing=mark)


def _by_proxy(app_id: str, found: LocalResponse) -> Answer:
    mark = ((HEADER.decode(), _first(found.headers, HEADER).decode("latin-1")),)
    trace = _first(found.headers, TRACEPARENT)
    try:
        told = json.loads(found.body)["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return traced(failed(app_id, f"HTTP status {found.status}", trailing=mark), trace)
    text = str(told).removeprefix(invocation_failure(app_id, ""))
    if mark[0][1] in _BREAKER:
        return traced(Answer(code=UNKNOWN, message=text, trailing=mark), trace)
    code = DEADLINE_EXCEEDED if mark[0][1] == Cause.TIMEOUT.value else INTERNAL
    return traced(failed(app_id, text, code=code, trailing=mark), trace)


def traced(answer: Answer, trace: bytes) -> Answer:
    """The same failure with its trace (a `traceparent`), as other gRPC errors have it."""
    context = parse_traceparent(trace)
    if context is None:
        return answer
    details = with_trace(b"", answer.code, answer.message, f"{context.trace_id:032x}".encode())
    told: Metadata = ((TRACEPARENT.decode(), trace.decode("latin-1")), (DETAILS_KEY, details))
    return replace(answer, trailing=(*answer.trailing, *told))


def _initial(headers: Headers) -> Iterator[tuple[str, str]]:
    """The fields of an answer as metadata; those that gRPC can't carry are left out."""
    for raw, data in headers:
        name, value = raw.decode("latin-1").lower(), data.decode("latin-1")
        if name == _STATUS_KEY or name.endswith("-bin") or name.startswith("postern-"):
            continue
        if METADATA_NAME.fullmatch(name) and METADATA_TEXT.fullmatch(value):
            yield as_metadata_name(name), value


def _first(headers: Iterable[Header], name: bytes) -> bytes:
    return next((data for key, data in headers if key == name), b"")
