"""What a gRPC error says besides code and message: google.rpc.Status with one ErrorInfo, as Dapr sends it.

By hand: another package may have registered those messages in this process, and they cost more to import than to write.
Source: googleapis google/rpc/status.proto, error_details.proto.
"""

from typing import Final

from sentry.wire import encode

_TYPE: Final = b"type.googleapis.com/google.rpc.ErrorInfo"
_BODY_BYTES: Final = 64  # of the text, which is cut as Dapr cuts it


def status_details(code: int, phrase: str, status: int, body: bytes) -> bytes:
    """The message. phrase: of the HTTP status `status`; body: what the HTTP answer to it says."""
    cut = body if len(body) < _BODY_BYTES else body[: _BODY_BYTES - 1]
    told = {"http.code": str(status), "http.error_message": cut.decode("utf-8", "replace")}
    entries = [(3, encode(((1, key.encode()), (2, text.encode())))) for key, text in told.items()]
    info = encode(((1, phrase.encode()), (2, b"dapr.io"), *entries))
    return encode(((1, code), (2, phrase.encode()), (3, encode(((1, _TYPE), (2, info))))))
