"""Every span attribute, metric label and code name that postern writes, in one place. Tables only."""

# Span attributes (values are strings).
RPC_SERVICE = "rpc.service"
NET_PEER_NAME = "net.peer.name"
PEER_SERVICE = "peer.service"
DAPR_PROTOCOL = "dapr.protocol"
DAPR_API = "dapr.api"
DAPR_STATUS_CODE = "dapr.status_code"
DAPR_INVOKE_METHOD = "dapr.invoke_method"
DAPR_APP_ID = "dapr-app-id"
DAPR_CALLER_APP_ID = "dapr-caller-app-id"
DAPR_CALLEE_APP_ID = "dapr-callee-app-id"
HTTP_REQUEST_METHOD = "http.request.method"
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
HTTP_RESEND_COUNT = "http.request.resend_count"
URL_FULL = "url.full"
URL_PATH = "url.path"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
CLIENT_ADDRESS = "client.address"
HTTP_ROUTE = "http.route"
NETWORK_PROTOCOL_VERSION = "network.protocol.version"
BAGGAGE_PREFIX = "baggage."
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
ERROR_TYPE = "error.type"
POSTERN_DECISION = "postern.decision"
POSTERN_BREAKER = "postern.circuit_breaker"
POSTERN_NOT_RETRIED = "postern.not_retried"
SAMPLING_PROMOTED = "sampling.promoted"  # not sampled, and kept for how it ended
EMPTY_BUDGET = "budget"  # of what POSTERN_NOT_RETRIED says

TIMEOUT_CAUSE = "timeout"
SERVICE_INVOCATION = "ServiceInvocation"
CALL_LOCAL_STREAM = "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream"
INVOKE_PREFIX = "/v1.0/invoke/"

# gRPC codes by number: as in attributes, and as metric labels spell them.
GRPC_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
GRPC_LABELS = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
# A gRPC code as the class of HTTP status it stands for, so that one success ratio serves both protocols.
GRPC_CODE_CLASSES = (
    "2xx",
    "4xx",
    "5xx",
    "4xx",
    "5xx",
    "4xx",
    "4xx",
    "4xx",
    "4xx",
    "4xx",
    "4xx",
    "4xx",
    "5xx",
    "5xx",
    "5xx",
    "5xx",
    "4xx",
)
# Failures made by a proxy, as classes of `postern_edge_requests_total`; a cause not named here is its own class.
CAUSE_CLASSES = {
    "denied": "acl",
    "unauthenticated": "acl",
    "connect": "connect",
    "tls-identity": "connect",
    "refused": "connect",
    "no-endpoint": "connect",
    "app-down": "connect",
    "breaker-open": "breaker",
    "breaker-probing": "breaker",
    "rate": "shed",
    "rate-limited": "shed",
}
#: The gRPC status that an HTTP answer without one stands for; UNKNOWN where it isn't here.
GRPC_CODE_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
CALLER_LEFT_CAUSE = "caller-left"
APP_DOWN_CAUSE = "app-down"
UNAUTHENTICATED_CAUSE = "unauthenticated"
#: Causes that only say what status the app itself gave.
STATUS_CAUSE = "status"
PEER_PROXY = "peer-proxy"  # who made an answer in the app's place: the callee's proxy

HTTP_VERBS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


def grpc_code_name(code: int) -> str:
    """`UNAVAILABLE` for 14; a number outside the table stays a number."""
    return GRPC_CODES[code] if 0 <= code < len(GRPC_CODES) else str(code)


def grpc_code_label(code: int) -> str:
    """`Unavailable` for 14, as the `dapr_grpc_*` metrics spell it."""
    return GRPC_LABELS[code] if 0 <= code < len(GRPC_LABELS) else str(code)


def grpc_code_class(code: int) -> str:
    """`5xx` for 14: the class of the HTTP status that a gRPC code stands for."""
    return GRPC_CODE_CLASSES[code] if 0 <= code < len(GRPC_CODE_CLASSES) else "5xx"
