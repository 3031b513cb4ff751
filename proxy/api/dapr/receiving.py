"""Unary methods whose messages are read here, so that one that can't be read is answered as gRPC servers do."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Request = TypeVar("_Request", bound=Message)


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
