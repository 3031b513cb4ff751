"""What the details of a gRPC error say."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def error_info(details: str | bytes) -> tuple[int, str, dict[str, object]]:
    """Code, message and ErrorInfo of a google.rpc.Status as the protobuf library reads it."""
    made_of, status = _read(details)
    (one,) = [any_ for any_ in status.details if any_.type_url == "type.googleapis.com/google.rpc.ErrorInfo"]
    info: Any = made_of["ErrorInfo"].FromString(one.value)
    pairs = {pair.key: pair.value for pair in info.metadata}
    return status.code, status.message, {"reason": info.reason, "domain": info.domain, **pairs}


def request_id(details: str | bytes) -> tuple[int, str, str]:
    """Code, message and the request id of a google.rpc.Status."""
    made_of, status = _read(details)
    (one,) = [
        any_ for any_ in status.details if any_.type_url == "type.googleapis.com/google.rpc.RequestInfo"
    ]
    info: Any = made_of["RequestInfo"].FromString(one.value)
    return status.code, status.message, info.request_id


def _read(details: str | bytes) -> tuple[dict[str, Any], Any]:
    """The types that are needed, in a pool of their own, and the status."""
    pool = descriptor_pool.DescriptorPool()
    text = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rpc.proto", package="google.rpc", syntax="proto3")
    kinds = {
        "Any": (("type_url", 1, text.TYPE_STRING, 1), ("value", 2, text.TYPE_BYTES, 1)),
        "Status": (
            ("code", 1, text.TYPE_INT32, 1),
            ("message", 2, text.TYPE_STRING, 1),
            ("details", 3, text.TYPE_MESSAGE, 3),
        ),
        "Pair": (("key", 1, text.TYPE_STRING, 1), ("value", 2, text.TYPE_STRING, 1)),
        "ErrorInfo": (
            ("reason", 1, text.TYPE_STRING, 1),
            ("domain", 2, text.TYPE_STRING, 1),
            ("metadata", 3, text.TYPE_MESSAGE, 3),
        ),
        "RequestInfo": (("request_id", 1, text.TYPE_STRING, 1), ("serving_data", 2, text.TYPE_STRING, 1)),
    }
    for name, fields in kinds.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            made = message.field.add(name=field, number=number, type=kind, label=label)
            if kind == text.TYPE_MESSAGE:
                made.type_name = ".google.rpc.Any" if name == "Status" else ".google.rpc.Pair"
    pool.Add(file)
    made_of = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}"))
        for name in kinds
    }
    assert isinstance(details, bytes)
    return made_of, made_of["Status"].FromString(details)
