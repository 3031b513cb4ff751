"""What a gRPC error says besides code and message: google.rpc.Status with one ErrorInfo, as Dapr sends it.

By hand: another package may have registered those messages in this process, and they cost more to import than to write.
Source: googleapis google/rpc/status.proto, error_details.proto.
"""

from collections.abc import Mapping
from typing import Final

from sentry.wire import encode

_TYPE: Final = b"type.googleapis.com/google.rpc.ErrorInfo"
_BODY_BYTES: Final = 64  # of the text, which is cut as Dapr cuts it


def status_details(code: int, phrase: str, status: int, body: bytes) -> bytes:
    """The message for an HTTP answer. phrase: of its status; body: what it says."""
    cut = body if len(body) < _BODY_BYTES else body[: _BODY_BYTES - 1]
    told = {"http.code": str(status), "http.error_message": cut.decode("utf-8", "replace")}
    return error_status(code, phrase, phrase, told)


def error_status(code: int, message: str, reason: str, told: Mapping[str, str] | None = None) -> bytes:
    """The message. message: as in grpc-message; reason and told: of the ErrorInfo, whose domain is Dapr's."""
    entries = [(3, encode(((1, key.encode()), (2, text.encode())))) for key, text in (told or {}).items()]
    info = encode(((1, reason.encode()), (2, b"dapr.io"), *entries))
    return encode(((1, code), (2, message.encode()), (3, encode(((1, _TYPE), (2, info))))))
