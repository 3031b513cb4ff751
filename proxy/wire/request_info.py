"""The trace's id in the details of a gRPC error: a google.rpc.RequestInfo, in a message that may say more. Pure.

By hand, as `status_details` is; engines know nothing of what is beside them. Equal to `with_trace` in `crates/core/src/call/answers.rs`.
Source: googleapis google/rpc/status.proto, error_details.proto.
"""

from typing import Final

_TYPE: Final = b"type.googleapis.com/google.rpc.RequestInfo"


def with_trace(details: bytes, code: int, message: str, trace_id: bytes) -> bytes:
    """A google.rpc.Status with the trace's id as a `request_id`. details: what it says already; empty: code and message alone.

    A repeated field is added to by writing it once more.
    """
    said = details or b"\x08" + _varint(code) + _field(2, message.encode("utf-8", "replace"))
    return said + _field(3, _field(1, _TYPE) + _field(2, _field(1, trace_id)))


def _field(number: int, data: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
