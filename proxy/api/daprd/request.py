"""The request of an invocation: a daprd's envelope as HTTP, and HTTP as an envelope for a daprd. Pure."""

import re
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from msgspec import Struct

from proxy.api.dapr.codes import INVALID_ARGUMENT
from proxy.api.dapr.common_pb2 import HTTPExtension
from proxy.api.dapr.invocation import REQUEST_KIND, REQUEST_TYPE
from proxy.api.daprd.fields import as_text, first, from_map, into_map
from proxy.api.daprd.framing import WireError
from proxy.api.daprd.internals_pb2 import InternalInvokeRequest, ListStringValue
from proxy.contract.head import Header, Headers
from proxy.wire import deadlines
from proxy.wire.grpc_timeout import parse_grpc_timeout
from proxy.wire.streams import RawHead
from proxy.wire.target import clean
from telemetry.context import format_traceparent, parse_grpc_trace_bin

# Go's default encoding of a path leaves these as they are.
_PATH_SAFE: Final = "/-._~!$&'()*+,;=:@"
_ESCAPE: Final = re.compile("%[0-9A-Fa-f]{2}")
_QUERY_SAFE: Final = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) != "#")
_LENGTH_DIGITS: Final = 18
_VERBS: Final = frozenset(HTTPExtension.Verb.keys()) - {"CONNECT"}
_WITH_LENGTH: Final = frozenset({"POST", "PUT", "PATCH"})  # RFC 9110 §8.6: an empty body of these says so


class TargetError(ValueError):
    """A request that can't be put into an envelope so that all who read it read the same."""


class UnknownVerbError(ValueError):
    """A verb that envelopes have no name for."""


class Parties(Struct, frozen=True, kw_only=True):
    """Whose call it is, and whose app is called."""

    app_id: str
    namespace: str
    callee: str


# --- from a daprd -------------------------------------------------------------------------------------------------------------


def checked(request: InternalInvokeRequest) -> InternalInvokeRequest:
    """The same. Raises WireError for an envelope without what it needs."""
    if not request.metadata or not request.HasField("message"):
        raise WireError(INVALID_ARGUMENT, "the request has no metadata or no message in its first part")
    if request.ver != 1:
        raise WireError(INVALID_ARGUMENT, f"version {request.ver} of the envelope is not known here")
    return request


def announced_length(request: InternalInvokeRequest) -> int | None:
    """The body's length by Content-Length; None where that says nothing."""
    text = first(request.metadata, "content-length").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LENGTH_DIGITS else None


def http_head(
    request: InternalInvokeRequest, outer: Headers, length: int | None, *, for_grpc: bool
) -> RawHead:
    """The HTTP request that an envelope asks for. outer: of the gRPC call, which says who calls; length: of the body, None: not known.

    for_grpc: the app gets the method as a text, by OnInvoke, and not as a path.

    Raises WireError.
    """
    message = request.message
    verb = HTTPExtension.Verb.Name(message.http_extension.verb) if _has_verb(request) else "NONE"
    if verb not in _VERBS:
        raise WireError(INVALID_ARGUMENT, "CONNECT can't be invoked")
    if any(ord(c) < 0x20 or c in "#?\x7f" for c in message.method):
        raise WireError(INVALID_ARGUMENT, "the method holds '#', '?' or a control character")
    path = clean(f"/{message.method}")
    target = quote(path, safe=_PATH_SAFE) if for_grpc else _escaped(path)
    if message.http_extension.querystring:
        target += f"?{quote(message.http_extension.querystring, safe=_QUERY_SAFE)}"
    # Whose call it is a daprd says in lower case; in Go's canonical case its client says so.
    told = {
        key: values
        for key, values in request.metadata.items()
        if key.islower() or not key.lower().startswith("dapr-caller-")
    }
    headers = [*from_map(told, keeps_binary=for_grpc)]
    trace = _trace_of(outer)
    if trace is not None:
        headers = [*(field for field in headers if field[0] != b"traceparent"), trace]
    kind = "application/x-protobuf" if message.data.type_url else message.content_type
    if kind:
        headers.append((b"content-type", quote(kind, safe=_QUERY_SAFE + " ").encode()))
    if message.data.type_url:
        headers.append((REQUEST_TYPE, quote(message.data.type_url, safe="/:").encode()))
        if message.content_type:
            headers.append((REQUEST_KIND, quote(message.content_type, safe=_QUERY_SAFE + " ").encode()))
    if length or (length == 0 and verb in _WITH_LENGTH):
        headers.append((b"content-length", b"%d" % length))
    left_s = parse_grpc_timeout(dict(outer).get(b"grpc-timeout", b""))
    headers = deadlines.told(headers, left_s)
    peer = _peer_of(outer)
    if peer is not None:
        headers.append((b"postern-peer", peer))
    return RawHead(
        protocol="http2",
        method=verb.encode(),
        authority=b"localhost",
        target=target.encode(),
        headers=tuple(headers),
        framing="none" if length == 0 else "stream" if length is None else "length",
        length=length,
    )


def _escaped(path: str) -> str:
    """A method's path as a daprd would send it to its app: valid escapes stay, as Go's net/url keeps them.

    Up to 1.14 daprds send on what their client escaped without need (`%40`), and in InvokeService all do.
    """
    are_valid = path.count("%") == len(_ESCAPE.findall(path))
    return quote(path, safe=f"{_PATH_SAFE}%" if are_valid else _PATH_SAFE)


def _has_verb(request: InternalInvokeRequest) -> bool:
    message = request.message
    return message.HasField("http_extension") and message.http_extension.verb in HTTPExtension.Verb.values()


def _trace_of(outer: Headers) -> Header | None:
    """The daprd's own span: the envelope has what its client sent."""
    named = dict(outer)
    if b"traceparent" in named:
        return (b"traceparent", named[b"traceparent"])
    context = parse_grpc_trace_bin(named.get(b"grpc-trace-bin", b""))
    return None if context is None else (b"traceparent", format_traceparent(context))


def _peer_of(outer: Headers) -> bytes | None:
    """Whom the certificate of the connection proves: the engine wrote it (`Op.CALLER`), nobody else can."""
    named = dict(outer)
    if b"dapr-caller-app-id" not in named:
        return None
    parts = (
        named[name] for name in (b"postern-trust-domain", b"dapr-caller-namespace", b"dapr-caller-app-id")
    )
    return b"spiffe://%b/ns/%b/%b" % tuple(parts)


# --- to a daprd ---------------------------------------------------------------------------------------------------------------


def envelope(head: RawHead, parties: Parties) -> InternalInvokeRequest:
    """What a daprd is sent for an HTTP request. Raises TargetError, UnknownVerbError."""
    verb = head.method.decode("latin-1")
    if verb not in _VERBS:
        raise UnknownVerbError(f"a daprd can't be sent the verb {verb}")
    path, _, query = head.target.decode("latin-1").partition("?")
    request = InternalInvokeRequest(ver="V1")
    message = request.message
    message.method = method_of(path)
    if verb != "NONE" or query:
        message.http_extension.CopyFrom(HTTPExtension(verb=verb, querystring=query))
    named = dict(head.headers)
    message.content_type = as_text(named.get(REQUEST_KIND if REQUEST_TYPE in named else b"content-type", b""))
    if REQUEST_TYPE in named:
        message.data.type_url = unquote(as_text(named[REQUEST_TYPE]))
    passed = tuple(
        f
        for f in head.headers
        if f[0] not in (REQUEST_TYPE, REQUEST_KIND) and not f[0].startswith(b"postern-")
    )
    into_map(passed, request.metadata)
    ours = {
        "destination-app-id": parties.callee,
        "dapr-caller-namespace": parties.namespace,
        "dapr-caller-app-id": parties.app_id,
        "dapr-callee-app-id": parties.callee,
    }
    for name, value in ours.items():
        request.metadata[name].CopyFrom(ListStringValue(values=[value]))
    return request


def method_of(path: str) -> str:
    """A path decoded once and clean, as daprds judge and forward it. Raises TargetError where another reader may find another path."""
    lowered = path.lower()
    if "%2f" in lowered or "%5c" in lowered or "\\" in path:
        raise TargetError("the path holds an encoded slash, or a backslash")
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise TargetError("the path is not UTF-8") from None
    if any(ord(c) < 0x20 or c in "#?%\x7f" for c in decoded):
        raise TargetError("the path still holds '%', '#', '?' or a control character once decoded")
    return clean(decoded).lstrip("/")
