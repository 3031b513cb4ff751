"""OTLP's messages of every signal, beside OpenTelemetry's own."""

from importlib import import_module
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from telemetry.otlp.requests import KINDS
from telemetry.otlp.target import Signal

OFFICIAL: dict[Signal, str] = {"traces": "trace", "metrics": "metrics", "logs": "logs"}
# In development there; what carries them is kept as it came.
_NEWER = {"string_value_strindex", "key_strindex", "entity_refs"}


def shape(message: Any, seen: frozenset[str] = frozenset()) -> dict[int, object]:
    """A message as the wire has it: the fields' kinds by their numbers, through all messages within."""
    found: dict[int, object] = {}
    for field in message.fields:
        if field.name in _NEWER:
            continue
        inner = field.message_type
        kind = FieldDescriptor.TYPE_INT32 if field.type == FieldDescriptor.TYPE_ENUM else field.type
        is_new = inner is not None and inner.full_name not in seen
        within = shape(inner, seen | {inner.full_name}) if is_new else None
        found[field.number] = (kind, field.is_repeated, field.has_presence, field.json_name, within)
    return found


@pytest.mark.parametrize("signal", OFFICIAL)
def test_messages_are_opentelemetry_s(signal: Signal) -> None:
    name = OFFICIAL[signal]
    official = pytest.importorskip(f"opentelemetry.proto.collector.{name}.v1.{name}_service_pb2")
    (theirs,) = (
        message
        for message in official.DESCRIPTOR.message_types_by_name.values()
        if message.name.endswith("ServiceRequest")
    )
    assert shape(KINDS[signal].DESCRIPTOR) == shape(theirs)
    assert import_module("telemetry.otlp.messages_pb2").DESCRIPTOR.package == "postern.otlp"
