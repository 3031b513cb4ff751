"""InvokeService as an HTTP call of the callee, and the answer to that as one of gRPC. Pure.

What the sidecars themselves answer carries `postern-error` and becomes Internal, whatever it was, as Dapr has it; the text tells.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from proxy.api.dapr.codes import INTERNAL, OK, RESOURCE_EXHAUSTED, as_metadata_name, code_of, phrase_of
from proxy.api.dapr.common_pb2 import HTTPExtension, InvokeResponse
from proxy.api.dapr.runtime_pb2 import InvokeServiceRequest
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause
from proxy.errors import HEADER
from proxy.wire.http_client import LocalResponse
from sentry.wire import encode
from telemetry.context import format_traceparent, parse_grpc_trace_bin

Metadata = tuple[tuple[str, str | bytes], ...]
_ID: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_TEXT: Final = re.compile(r"[ -~]*")
# What a path and a query may hold (RFC 3986 §3.3, §3.4); `%` stays, as the method may be escaped already.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=-._~"
_QUERY_SAFE: Final = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "#")
# Of the connection or of this call alone (RFC 9110 §7.6.1); what the call has anew; secrets of the API.
_DROPPED: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"),
        *("te", "trailer", "proxy-authorization", "proxy-authenticate", "expect", "host", "content-length"),
        *("content-type", "dapr-app-id", "dapr-api-token"),
    }
)
_ERROR_BODY_BYTES: Final = 64
_STATUS_KEY: Final = "dapr-http-status"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_ERROR_INFO: Final = b"type.googleapis.com/google.rpc.ErrorInfo"


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
    request: InvokeServiceRequest, metadata: Iterable[tuple[str, str | bytes]]
) -> HttpCall | Answer:
    """The HTTP call that a request of InvokeService asks for, or why there can be none."""
    message = request.message
    if not _ID.fullmatch(request.id):
        return failed(request.id, f"invalid app-id {request.id!r}: use letters, digits, '-' or '_'")
    verb = message.http_extension.verb
    if verb in (HTTPExtension.NONE, HTTPExtension.CONNECT) or verb not in HTTPExtension.Verb.values():
        return failed(request.id, "no HTTP verb: set http_extension.verb to GET, POST or another but CONNECT")
    fields = [("dapr-app-id", request.id), *_fields(metadata)]
    kind = "application/x-protobuf" if message.data.type_url else message.content_type
    if kind:
        fields.append(("content-type", _printable(kind)))
    return HttpCall(
        HTTPExtension.Verb.Name(verb),
        _target(message.method, message.http_extension.querystring),
        tuple(fields),
        message.data.value,
    )


def _target(method: str, query: str) -> str:
    path = "/" + quote(method.lstrip("/"), safe=_PATH_SAFE)
    return f"{path}?{quote(query, safe=_QUERY_SAFE)}" if query else path


def _printable(text: str) -> str:
    return text if _TEXT.fullmatch(text) else quote(text, safe=_QUERY_SAFE + " ")


def _fields(metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[tuple[str, str]]:
    """The fields of the HTTP request: no binary ones, but for the trace where no other field names it."""
    pairs = list(metadata)
    for name, value in pairs:
        if isinstance(value, str) and name not in _DROPPED and not name.endswith("-bin"):
            yield f"dapr-{name}" if name.startswith("grpc-") else name, value
    named = dict(pairs)
    trace = named.get("grpc-trace-bin")
    if isinstance(trace, bytes) and "traceparent" not in named:
        context = parse_grpc_trace_bin(b64encode(trace))
        if context is not None:
            yield "traceparent", format_traceparent(context).decode("ascii")


def answer_to(app_id: str, found: LocalResponse, max_bytes: int) -> Answer:
    """What the caller of InvokeService gets for the answer to its HTTP call. max_bytes: of the message."""
    if any(name == HEADER for name, _ in found.headers):
        return _by_proxy(app_id, found)
    initial: Metadata = (*_initial(found.headers), (_STATUS_KEY, str(found.status)))
    code = code_of(found.status)
    if code != OK:
        phrase = phrase_of(found.status)
        details = _details(code, phrase, found.status, found.body)
        return Answer(code=code, message=phrase, initial=initial, trailing=((_DETAILS_KEY, details),))
    response = InvokeResponse(content_type=_first(found.headers, b"content-type").decode("latin-1"))
    response.data.value = found.body
    return (
        too_large(app_id, max_bytes)
        if response.ByteSize() > max_bytes
        else Answer(initial=initial, response=response)
    )


def failed(app_id: str, text: str, *, code: int = INTERNAL, trailing: Metadata = ()) -> Answer:
    """A failure that is none of the app's, in Dapr's words."""
    return Answer(code=code, message=f"failed to invoke, id: {app_id}, err: {text}", trailing=trailing)


def too_large(app_id: str, max_bytes: int) -> Answer:
    """The app's answer does not fit."""
    text = f"the answer is larger than {max_bytes} bytes; --max-body-size sets the limit"
    mark = ((HEADER.decode(), Cause.TOO_LARGE.value),)
    return failed(app_id, text, code=RESOURCE_EXHAUSTED, trailing=mark)


def _by_proxy(app_id: str, found: LocalResponse) -> Answer:
    mark = ((HEADER.decode(), _first(found.headers, HEADER).decode("latin-1")),)
    try:
        told = json.loads(found.body)["message"]
    except (ValueError, LookupError, TypeError):
        return failed(app_id, f"HTTP status {found.status}", trailing=mark)
    return Answer(code=INTERNAL, message=str(told), trailing=mark)


def _initial(headers: Headers) -> Iterator[tuple[str, str]]:
    """The fields of an answer as metadata; those that gRPC can't carry are left out."""
    for raw, data in headers:
        name, value = raw.decode("latin-1").lower(), data.decode("latin-1")
        if name in ("content-length", _STATUS_KEY) or name.endswith("-bin"):
            continue
        if _NAME.fullmatch(name) and _TEXT.fullmatch(value):
            yield as_metadata_name(name), value


def _first(headers: Iterable[Header], name: bytes) -> bytes:
    return next((data for key, data in headers if key == name), b"")


def _details(code: int, phrase: str, status: int, body: bytes) -> bytes:
    """A google.rpc.Status with one ErrorInfo. By hand: another package may have registered those messages in this process."""
    cut = body if len(body) < _ERROR_BODY_BYTES else body[: _ERROR_BODY_BYTES - 1]
    told = {"http.code": str(status), "http.error_message": cut.decode("utf-8", "replace")}
    entries = [(3, encode(((1, key.encode()), (2, text.encode())))) for key, text in told.items()]
    info = encode(((1, phrase.encode()), (2, b"dapr.io"), *entries))
    return encode(((1, code), (2, phrase.encode()), (3, encode(((1, _ERROR_INFO), (2, info))))))
