"""What went wrong, and the one table that maps it to the caller's answer.

Each cause has an answer on our own surfaces (the standards' codes) and one on Dapr's (what its users' code checks for), in HTTP and in
gRPC.
"""

import errno
import json
import os
import socket
import ssl

from msgspec import Struct

from proxy.contract.head import Headers
from proxy.contract.plan import DETAIL, TRACE_ID, Cause, Labels, Reply, Surface


class ProxyError(Exception):
    """Base of everything the proxy raises on purpose."""


class TooManyTapsError(ProxyError):
    """One sidecar's calls are looked at by as many as may. `most`: how many that is."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} taps are open here, which is the most: end one of them first")
        self.most = most


def os_reason(error: OSError) -> str:
    """Why the system refused, in its own words: asyncio's text of a failed connection says "Connect call failed" and the address."""
    if error.errno and not isinstance(error, socket.gaierror | ssl.SSLError):
        return os.strerror(error.errno)
    return error.strerror or str(error)


class ConfigError(ProxyError):
    """Flags, environment or files that can't be used. `faults` lists all of them, one line each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


_LISTENERS = {
    "http": ("the HTTP API", "--dapr-http-port"),
    "grpc": ("the gRPC API", "--dapr-grpc-port"),
    "peer": ("peers", "--dapr-internal-grpc-port"),
    "metrics": ("metrics", "--metrics-port"),
    "public": ("the public port", "--dapr-public-port"),
    "own": ("an app's own port", "--upstream"),
}


class ListenError(ProxyError):
    """A port or socket can't be bound. Says which flag moves it."""

    def __init__(self, name: str, address: str, reason: str) -> None:
        kind, _, app = name.partition("@")[0].partition(":")
        what, flag = _LISTENERS.get(kind, (name, ""))
        if kind == "own" and app:
            what, flag = f"the dedicated port for {app}", f"--upstream {app}=PORT"
        short = reason.partition(" (while attempting")[0]  # Python repeats the address there
        if address.startswith("unix:"):
            flag = "--unix-domain-socket"
        advice = f"; {flag} moves it" if flag else ""
        super().__init__(f"can't listen on {address} for {what}: {short}{advice}")
        self.name = name
        self.address = address
        self.is_taken = reason.startswith(os.strerror(errno.EADDRINUSE))


class Answer(Struct, frozen=True):
    """HTTP status and gRPC code on our own surfaces, then on Dapr's; errorCode; may another attempt help?"""

    status: int
    grpc: int
    dapr_status: int
    dapr_grpc: int
    code: str
    retryable: bool = False


# gRPC codes: 2 UNKNOWN, 3 INVALID_ARGUMENT, 4 DEADLINE_EXCEEDED, 5 NOT_FOUND, 7 PERMISSION_DENIED, 8 RESOURCE_EXHAUSTED,
# 12 UNIMPLEMENTED, 13 INTERNAL, 14 UNAVAILABLE, 16 UNAUTHENTICATED.
ANSWERS: dict[Cause, Answer] = {
    Cause.NO_APP: Answer(404, 5, 500, 2, "ERR_NO_APP"),
    Cause.NO_ENDPOINT: Answer(503, 14, 500, 14, "ERR_NO_ENDPOINT", retryable=True),
    Cause.DENIED: Answer(403, 7, 403, 7, "ERR_DENIED"),
    Cause.CONNECT: Answer(502, 14, 500, 14, "ERR_CONNECT", retryable=True),
    Cause.TLS_IDENTITY: Answer(502, 14, 500, 14, "ERR_TLS_IDENTITY", retryable=True),
    Cause.REFUSED: Answer(503, 14, 500, 14, "ERR_REFUSED", retryable=True),
    Cause.RESET_EARLY: Answer(502, 14, 500, 14, "ERR_RESET"),
    Cause.RESET_LATE: Answer(502, 14, 500, 14, "ERR_RESET"),
    Cause.TIMEOUT: Answer(504, 4, 500, 4, "ERR_TIMEOUT"),
    Cause.BREAKER: Answer(503, 14, 500, 2, "ERR_BREAKER_OPEN"),
    Cause.PROBING: Answer(503, 14, 500, 2, "ERR_BREAKER_PROBING"),
    Cause.SHED: Answer(503, 8, 503, 8, "ERR_SHED"),
    Cause.RATE: Answer(429, 8, 429, 8, "ERR_RATE_LIMITED"),
    Cause.TOO_LARGE: Answer(413, 8, 500, 8, "ERR_TOO_LARGE"),
    Cause.STATUS: Answer(502, 14, 500, 14, "ERR_STATUS"),
    Cause.CALLER_LEFT: Answer(499, 1, 499, 1, "ERR_CALLER_LEFT"),
    Cause.DRAINING: Answer(503, 14, 500, 14, "ERR_DRAINING", retryable=True),
    Cause.BAD_REQUEST: Answer(400, 3, 400, 3, "ERR_BAD_REQUEST"),
    Cause.UNAUTHENTICATED: Answer(401, 16, 401, 16, "ERR_UNAUTHENTICATED"),
    Cause.FORBIDDEN_ORIGIN: Answer(403, 7, 403, 7, "ERR_FORBIDDEN_ORIGIN"),
    Cause.MISDIRECTED: Answer(421, 14, 421, 14, "ERR_MISDIRECTED", retryable=True),
    Cause.UNSUPPORTED: Answer(501, 12, 500, 12, "ERR_UNSUPPORTED"),
    Cause.APP_DOWN: Answer(502, 14, 500, 14, "ERR_APP_DOWN"),
    Cause.APP_UNHEALTHY: Answer(503, 14, 500, 14, "ERR_APP_UNHEALTHY"),
    Cause.NOT_READY: Answer(503, 14, 500, 14, "ERR_NOT_READY", retryable=True),
    Cause.INVALID_ANSWER: Answer(502, 13, 500, 13, "ERR_INVALID_ANSWER"),
    Cause.AUTHORIZER: Answer(503, 14, 503, 14, "ERR_AUTHORIZER", retryable=True),
}
#: What each `postern-error` tells a caller.
MEANINGS: dict[Cause, str] = {
    Cause.NO_APP: "no app was named, or the one that was is unknown",
    Cause.NO_ENDPOINT: "the app is known, and no instance of it takes calls",
    Cause.DENIED: "denied by an access policy",
    Cause.CONNECT: "no proxy of the callee accepted a connection",
    Cause.TLS_IDENTITY: "the peer could not prove that it is the callee, or rejected our certificate",
    Cause.REFUSED: "the callee refused the call before processing it",
    Cause.RESET_EARLY: "the connection broke before the response",
    Cause.RESET_LATE: "the connection broke during the response",
    Cause.TIMEOUT: "a policy's timeout or the caller's deadline expired",
    Cause.BREAKER: "a circuit breaker is open: calls of this method failed too often, and for a while none is sent",
    Cause.PROBING: "a circuit breaker is half-open, and as many calls probe as may",
    Cause.SHED: "the callee has no room: as many calls as may be are in flight, it refuses much, or its proxy is late",
    Cause.RATE: "a rate limit was reached",
    Cause.TOO_LARGE: "the request's body is over the limit",
    Cause.STATUS: "the app's own answer counts as a failure; in metrics and logs only",
    Cause.CALLER_LEFT: "the caller hung up; in metrics and logs only",
    Cause.DRAINING: "the proxy is shutting down",
    Cause.BAD_REQUEST: "the request is not valid HTTP, or asks for the impossible",
    Cause.UNAUTHENTICATED: "the API token, or a token that a pipeline asks for, is missing or wrong",
    Cause.FORBIDDEN_ORIGIN: "the request came from a browser, from a page of another origin",
    Cause.MISDIRECTED: "the call reached a proxy of another app",
    Cause.UNSUPPORTED: "the call can't be carried to an app of this protocol",
    Cause.APP_DOWN: "the callee's app does not accept connections",
    Cause.APP_UNHEALTHY: "the callee's app fails its health probes",
    Cause.NOT_READY: "a proxy has no certificate (nothing is sent in plaintext instead), or not what its pipeline needs of another server",
    Cause.INVALID_ANSWER: "the response is not valid HTTP, or has too many fields",
    Cause.AUTHORIZER: "an external authorizer that a policy or pipeline names did not answer in time, or not so that it counts",
}
HEADER = b"postern-error"
DETAILS = b"grpc-status-details-bin"  # of gRPC: a google.rpc.Status, in base64
DIRECT_INVOKE = "ERR_DIRECT_INVOKE"
_REQUEST_INFO = "type.googleapis.com/google.rpc.RequestInfo"
_NEVER_DAPRS = frozenset({Cause.SHED, Cause.RATE, Cause.AUTHORIZER})  # daprd sheds nothing, and asks nobody
_RETRY_AFTER = frozenset(
    {
        Cause.SHED,
        Cause.RATE,
        Cause.NO_ENDPOINT,
        Cause.DRAINING,
        Cause.NOT_READY,
        Cause.APP_UNHEALTHY,
        Cause.AUTHORIZER,
    }
)


def invocation_failure(callee: str, text: str) -> str:
    """What daprd says of an invocation that failed."""
    return f"failed to invoke, id: {callee}, err: {text}"


def reply(
    cause: Cause,
    labels: Labels,
    text: str,
    *,
    surface: Surface = "own",
    callee: str = "",
    status: int | None = None,
    grpc: int | None = None,
    code: str | None = None,
    extra: Headers = (),
) -> Reply:
    """The answer for a cause. `text` says what failed, why and what to do; it may hold `DETAIL`.

    On Dapr's surface the message is that of `invocation_failure`, with errorCode ERR_DIRECT_INVOKE.
    code: another errorCode.
    """
    answer = ANSWERS[cause]
    dapr = surface == "dapr"
    message = invocation_failure(callee, text) if dapr and callee else text
    headers: Headers = ((b"content-type", b"application/json"), (HEADER, cause.value.encode()), *extra)
    if cause in _RETRY_AFTER and (not dapr or cause in _NEVER_DAPRS):
        headers = (*headers, (b"retry-after", b"1"))
    return Reply(
        cause=cause,
        status=status or (answer.dapr_status if dapr else answer.status),
        headers=headers,
        body=error_body(code or (DIRECT_INVOKE if dapr else answer.code), message),
        grpc_code=grpc if grpc is not None else (answer.dapr_grpc if dapr else answer.grpc),
        grpc_message=text,
        labels=labels,
    )


def error_body(code: str, message: str, trace_id: str = TRACE_ID) -> bytes:
    """The fields of Dapr's errors and no other, which Dapr's SDK for Java would refuse; the trace's id is a detail as in AIP-193.
    As compact as Go writes JSON, since scripts look for parts of it.

    DETAIL and TRACE_ID stay bare: the engine puts an escaped detail and the trace's id in their places.
    """
    escaped = DETAIL.join(json.dumps(part, ensure_ascii=False)[1:-1] for part in message.split(DETAIL))
    details = f'[{{"@type":"{_REQUEST_INFO}","requestId":"{trace_id}"}}]'
    return f'{{"errorCode":"{code}","message":"{escaped}","details":{details}}}'.encode()
