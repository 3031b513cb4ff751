"""The tables between HTTP and gRPC as Dapr has them: codes, phrases, names of fields. Pure.

Source: Dapr's and Go's own code; Dapr's tables are not those of gRPC (doc/http-grpc-status-mapping.md).
"""

from base64 import b64decode
from http import HTTPStatus
from typing import Final

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = range(5)
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13
_OF_HTTP: Final = {
    400: INTERNAL,
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: 5,  # NOT_FOUND
    408: CANCELLED,
    409: 6,  # ALREADY_EXISTS
    429: RESOURCE_EXHAUSTED,
    501: UNIMPLEMENTED,
    503: 14,  # UNAVAILABLE
    504: DEADLINE_EXCEEDED,
}
_OF_GRPC: Final = {
    OK: 200,
    CANCELLED: 408,
    INVALID_ARGUMENT: 400,
    DEADLINE_EXCEEDED: 504,
    5: 404,  # NOT_FOUND
    6: 409,  # ALREADY_EXISTS
    7: 403,  # PERMISSION_DENIED
    RESOURCE_EXHAUSTED: 429,
    9: 400,  # FAILED_PRECONDITION
    10: 409,  # ABORTED
    11: 400,  # OUT_OF_RANGE
    UNIMPLEMENTED: 501,
    14: 503,  # UNAVAILABLE
    16: 401,  # UNAUTHENTICATED
}
# Where Go's words are others than Python's, in one version or another.
_PHRASES: Final = {
    413: "Request Entity Too Large",
    414: "Request URI Too Long",
    416: "Requested Range Not Satisfiable",
    418: "I'm a teapot",
    422: "Unprocessable Entity",
}
# Fields of HTTP that gRPC's metadata carries with a prefix.
_PERMANENT: Final = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-language",
        "accept-ranges",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-schedule-tag-match",
        "if-unmodified-since",
        "keep-alive",
        "max-forwards",
        "origin",
        "pragma",
        "proxy-connection",
        "referer",
        "transfer-encoding",
        "upgrade",
        "via",
        "warning",
    }
)


def code_of(status: int) -> int:
    """The gRPC code of an HTTP status."""
    return OK if 200 <= status < 300 else _OF_HTTP.get(status, UNKNOWN)


def status_of(code: int) -> int:
    """The HTTP status of a gRPC code."""
    return _OF_GRPC.get(code, 500)


def phrase_of(status: int) -> str:
    """The reason phrase of an HTTP status, empty for one that has none."""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def as_metadata_name(name: str) -> str:
    """The name in gRPC's metadata of a field of HTTP, lower-case: gRPC's own names, and HTTP's permanent ones, have a prefix."""
    return f"dapr-{name}" if name in _PERMANENT or name.startswith("grpc-") else name


def binary(text: bytes) -> bytes | None:
    """The value of `-bin` metadata, which travels in base64 with or without padding (gRPC over HTTP/2); None where it isn't base64."""
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None
