"""OTLP's JSON form: protobuf's, but with ids of traces and spans in hex and enums as numbers. Pure.

Source: OTLP specification, "JSON Protobuf Encoding".
"""

import base64
import json
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from telemetry.otlp.requests import KINDS
from telemetry.otlp.target import Signal

MessageT = TypeVar("MessageT", bound=Message)
_IDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
# Values nest as deep as a caller likes, and what reads them calls itself for each level.
_MAX_DEPTH = 64


class JsonFormError(ValueError):
    """It is not the JSON form of the message."""


def request_json(request: bytes, signal: Signal) -> bytes:
    """A request, from protobuf."""
    return to_json(KINDS[signal].FromString(request))


def to_json(message: Message) -> bytes:
    """The message as it is posted."""
    made = json_format.MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(
        _with_ids(made, lambda text: base64.b64decode(text).hex()), separators=(",", ":")
    ).encode()


def from_json(body: bytes, kind: type[MessageT]) -> MessageT:
    """The message; fields that it does not have are left out. Raises: JsonFormError."""
    try:
        read = json.loads(body)
        if not isinstance(read, dict):
            raise JsonFormError("expected a JSON object")
        return json_format.ParseDict(
            _with_ids(read, lambda text: base64.b64encode(bytes.fromhex(text)).decode()),
            kind(),
            ignore_unknown_fields=True,
            max_recursion_depth=2 * _MAX_DEPTH,
        )
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise JsonFormError(str(error)[:200]) from error


def _with_ids(value: Any, convert: Callable[[str], str], depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    if depth > _MAX_DEPTH:
        raise JsonFormError("nested too deep")
    if isinstance(value, list):
        return [_with_ids(each, convert, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: convert(each) if key in _IDS and isinstance(each, str) else _with_ids(each, convert, depth + 1)
        for key, each in value.items()
    }
