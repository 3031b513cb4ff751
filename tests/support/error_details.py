"""What the details of a gRPC error say."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def error_info(details: str | bytes) -> tuple[int, str, dict[str, object]]:
    """A google.rpc.Status as the protobuf library reads it, in a pool of its own."""
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
    status: Any = made_of["Status"].FromString(details)
    (one,) = status.details
    assert one.type_url == "type.googleapis.com/google.rpc.ErrorInfo"
    info: Any = made_of["ErrorInfo"].FromString(one.value)
    pairs = {pair.key: pair.value for pair in info.metadata}
    return status.code, status.message, {"reason": info.reason, "domain": info.domain, **pairs}
