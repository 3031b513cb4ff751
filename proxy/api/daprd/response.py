"""The answer to an invocation: an app's over HTTP as a daprd's envelope, and an envelope as an answer over HTTP. Pure."""

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote

from google.protobuf.message import DecodeError

from proxy.api.dapr.callback import Ended, http_answer
from proxy.api.dapr.codes import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    binary,
)
from proxy.api.dapr.common_pb2 import InvokeResponse
from proxy.api.dapr.invocation import (
    DETAILS_KEY,
    GRPC_HEADER,
    GRPC_MESSAGE,
    GRPC_STATUS,
    GRPC_TRAILER,
    GRPC_TYPE,
)
from proxy.api.daprd.fields import NOT_PASSED, as_text, from_map, into_map
from proxy.api.daprd.framing import WireError
from proxy.api.daprd.internals_pb2 import InternalInvokeResponse
from proxy.contract.head import Header, Headers
from proxy.contract.plan import Cause, Labels
from proxy.errors import HEADER, invocation_failure, reply
from proxy.wire.http_client import LocalResponse
from sentry.wire import sized_fields
from telemetry.names import GRPC_LABELS, grpc_code_label

_LEAST_HTTP, _MOST_HTTP = 200, 999
_EVENTS: Final = b"text/event-stream"
#: A success without a message, which is all that such a daprd tells of events where the app ends without sending one.
NO_EVENTS: Final = LocalResponse(200, ((b"content-type", _EVENTS),))
_PERMISSION_DENIED, _UNAVAILABLE = 7, 14
_LIMIT: Final = b"ratelimit"
_CAUSES: Final = {cause.value.encode(): cause for cause in Cause}
# What a daprd is told of a call that a proxy ended. Not UNIMPLEMENTED, after which it would come again by CallLocal; UNAVAILABLE only
# where it may come again, and look the name up.
_TOLD: Final = {
    Cause.DENIED: _PERMISSION_DENIED,
    Cause.BAD_REQUEST: INVALID_ARGUMENT,
    Cause.TOO_LARGE: RESOURCE_EXHAUSTED,
    Cause.SHED: RESOURCE_EXHAUSTED,
    Cause.TIMEOUT: DEADLINE_EXCEEDED,
    Cause.DRAINING: _UNAVAILABLE,
    Cause.MISDIRECTED: _UNAVAILABLE,
    Cause.REFUSED: _UNAVAILABLE,
}
# What a daprd's status says of the call. Its callers, too, are told no more than INTERNAL of an app that is not there.
_MEANT: Final = {
    INVALID_ARGUMENT: Cause.BAD_REQUEST,
    DEADLINE_EXCEEDED: Cause.TIMEOUT,
    _PERMISSION_DENIED: Cause.DENIED,
    RESOURCE_EXHAUSTED: Cause.TOO_LARGE,
    UNIMPLEMENTED: Cause.UNSUPPORTED,
    INTERNAL: Cause.APP_DOWN,
    _UNAVAILABLE: Cause.REFUSED,
}


# --- to a daprd ---------------------------------------------------------------------------------------------------------------


def cause_of(headers: Headers) -> Cause | None:
    """Why a proxy ended the call; None where the app answered."""
    return _CAUSES.get(dict(headers).get(HEADER, b""))


def told(cause: Cause, body: bytes, own_id: str, headers: Headers = ()) -> WireError:
    """What a daprd is told of a call that a proxy ended, whose words come with its own in front. headers: of the proxy's answer."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        text = cause.value
    code = _TOLD.get(cause, INTERNAL)
    if cause is Cause.RATE and any(name == _LIMIT for name, _ in headers):
        code = RESOURCE_EXHAUSTED  # of a Traffic; a pipeline's handler is told as daprds have it
    return WireError(code, text.removeprefix(invocation_failure(own_id, "")))


def response_envelope(status: int, headers: Headers) -> InternalInvokeResponse:
    """An app's answer, without its body."""
    named = dict(headers)
    response = InternalInvokeResponse()
    response.status.code = int(named.get(GRPC_STATUS, b"%d" % status))
    response.message.content_type = as_text(named.get(b"content-type", b""))
    if GRPC_STATUS in named:
        _say_grpc(response, headers, named)
    passed = tuple(field for field in headers if _is_passed(field[0].decode("latin-1")))
    into_map(passed, response.headers)
    if b"content-type" in named:
        response.headers["Content-Type"].values.append(response.message.content_type)
    return response


def _is_passed(name: str) -> bool:
    return name not in NOT_PASSED and not name.endswith("-bin") and not name.startswith("postern-")


def _say_grpc(response: InternalInvokeResponse, headers: Headers, named: dict[bytes, bytes]) -> None:
    """What `proxy.api.dapr.callback` says of a gRPC app's answer that HTTP can't."""
    response.status.message = unquote(named.get(GRPC_MESSAGE, b"").decode("latin-1"))
    response.message.data.type_url = unquote(named.get(GRPC_TYPE, b"").decode("latin-1"))
    for name, data in headers:
        for prefix, found in ((GRPC_HEADER, response.headers), (GRPC_TRAILER, response.trailers)):
            if name.startswith(prefix):
                found[name.removeprefix(prefix).decode("latin-1")].values.append(as_text(data))
    details = named.get(GRPC_TRAILER + DETAILS_KEY.encode(), b"")
    try:
        for number, packed in sized_fields(b64decode(details)):
            if number == 3:
                response.status.details.add().MergeFromString(packed)
    except (ValueError, DecodeError):
        del response.status.details[:]


# --- from a daprd -------------------------------------------------------------------------------------------------------------


def answered(response: InternalInvokeResponse, callee: str) -> LocalResponse:
    """An envelope as an answer over HTTP; its body is empty where the payload is it. Raises WireError for a status of neither kind."""
    if not response.HasField("status"):
        raise WireError(INTERNAL, "the answer has no status")
    code = response.status.code
    if _LEAST_HTTP <= code <= _MOST_HTTP:
        return LocalResponse(code, (*_http_fields(response), *_type_of(response)))
    if not 0 <= code < len(GRPC_LABELS):
        raise WireError(INTERNAL, f"the answer has the status {code}")
    if not response.HasField("message") and not code:  # server-sent events, since Dapr 1.16
        return LocalResponse(200, (*_http_fields(response), *NO_EVENTS.headers))
    message = response.message
    ended = Ended(
        code=code,
        text=response.status.message,
        response=InvokeResponse(content_type=message.content_type, data=message.data),
        initial=tuple(_metadata(response.headers)),
        trailing=tuple(_metadata(response.trailers)),
    )
    return http_answer(callee, ended)


def accepts_events(headers: Headers) -> bool:
    """Whether a request has daprds since 1.16 answer in the form that they have for server-sent events: it accepts nothing else."""
    return dict(reversed(headers)).get(b"accept", b"").strip().lower() == _EVENTS


def _http_fields(response: InternalInvokeResponse) -> Iterator[Header]:
    return from_map(response.headers, keeps_binary=False)


def _type_of(response: InternalInvokeResponse) -> Headers:
    listed = (
        v for key, values in response.headers.items() if key.lower() == "content-type" for v in values.values
    )
    kind = response.message.content_type or next(listed, "")
    return ((b"content-type", quote(kind, safe=_PRINTABLE).encode()),) if kind else ()


_PRINTABLE: Final = "".join(chr(c) for c in range(0x20, 0x7F))


def _metadata(found: object) -> Iterator[tuple[str, str | bytes]]:
    for name, data in from_map(found, keeps_binary=True):  # type: ignore[arg-type]
        text = name.decode()
        if not text.endswith("-bin"):
            yield text, data.decode("latin-1")
            continue
        value = binary(data)
        if value is not None:
            yield text, value


def failed(head_fields: Headers, cause: Cause, text: str, callee: str) -> LocalResponse:
    """The answer to an HTTP call that came to nothing, in the words of the surface that it came by."""
    named = dict(head_fields)
    is_dapr = named.get(b"postern-surface") == b"dapr"
    sound = "".join(c if c.isprintable() else " " for c in text)
    made = reply(
        cause, Labels(direction="outbound"), sound, surface="dapr" if is_dapr else "own", callee=callee
    )
    trace_id = named.get(b"traceparent", b"")[3:35]
    return LocalResponse(made.status, made.headers, made.body.replace(b"\x02", trace_id))


def meant(code: int, text: str, said: bytes) -> tuple[Cause, str]:
    """What a gRPC status means that does not come from an app. said: the word of a proxy of ours, if any."""
    cause = _CAUSES.get(said)
    if cause is not None:
        return cause, text
    return _MEANT.get(code, Cause.RESET_EARLY), f"rpc error: code = {grpc_code_label(code)} desc = {text}"
