"""What this API's servers and clients have in common: their limits, and methods that answer a bad message as gRPC servers do."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
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
        return (await behaviour(await _message(data, request, context), context)).SerializeToString()

    return grpc.unary_unary_rpc_method_handler(receive)


def streaming(
    behaviour: Callable[[_Request, Context], AsyncGenerator[Message]], request: type[_Request]
) -> Any:  # noqa: ANN401
    """A handler of a method that takes such a request and answers with a stream, which is closed with its caller."""

    async def receive(data: bytes, context: Context) -> None:
        async with aclosing(behaviour(await _message(data, request, context), context)) as messages:
            async for message in messages:
                await context.write(message.SerializeToString())

    return grpc.unary_stream_rpc_method_handler(receive)


async def _message(data: bytes, request: type[_Request], context: Context) -> _Request:
    try:
        return request.FromString(data)
    except DecodeError:
        text = f"error unmarshalling request: not a valid {request.DESCRIPTOR.full_name}"
        await context.abort(grpc.StatusCode.INTERNAL, text)
