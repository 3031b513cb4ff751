"""What a collector says of a request: what of it it did not want, and when to come again. Pure."""

import json
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from telemetry.otlp.messages_pb2 import Response, RetryInfo, RpcStatus

_TEXT_LIMIT = 200


def rejected(answer: bytes, *, is_json: bool) -> tuple[int, str]:
    """How many spans or data points were rejected, and why. An answer that can't be read says nothing of that."""
    if is_json:
        return _rejected_json(answer)
    try:
        partial = Response.FromString(answer).partial_success
    except DecodeError:
        return 0, ""
    return max(0, partial.rejected), partial.error_message[:_TEXT_LIMIT]


def _rejected_json(answer: bytes) -> tuple[int, str]:
    try:
        told = json.loads(answer).get("partialSuccess", {})
        counts = [int(value) for name, value in told.items() if name.startswith("rejected")]
        return max(0, *counts, 0), str(told.get("errorMessage", ""))[:_TEXT_LIMIT]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return 0, ""


def retry_delay_s(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """The `RetryInfo` in `grpc-status-details-bin`, in seconds."""
    for name, value in trailers:
        if name != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        try:
            for detail in RpcStatus.FromString(value).details:
                if detail.type_url.endswith("/google.rpc.RetryInfo"):
                    delay = RetryInfo.FromString(detail.value).retry_delay
                    return float(delay.seconds + delay.nanos / 1e9)
        except DecodeError:
            return None
    return None
