"""What this API's servers and clients have in common: their limits, and unary methods that answer a bad message as gRPC servers do."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# The engine on the other side judges heads by --read-buffer-size; gRPC's own limits refuse some of 8 KiB, and all of 16.
_METADATA: Final = tuple((f"grpc.{which}max_metadata_size", 1 << 30) for which in ("", "absolute_"))
_Request = TypeVar("_Request", bound=Message)


def limits(max_bytes: int) -> tuple[tuple[str, int], ...]:
    """Options of a server or channel. max_bytes: of a message that it receives."""
    return (
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", -1),
        *_METADATA,
    )


def unary(behaviour: Callable[[_Request, Context], Awaitable[Message]], request: type[_Request]) -> Any:  # noqa: ANN401
    """A handler of a method that takes such a request."""

    async def receive(data: bytes, context: Context) -> bytes:
        try:
            message = request.FromString(data)
        except DecodeError:
            text = f"error unmarshalling request: not a valid {request.DESCRIPTOR.full_name}"
            await context.abort(grpc.StatusCode.INTERNAL, text)
        return (await behaviour(message, context)).SerializeToString()

    return grpc.unary_unary_rpc_method_handler(receive)
