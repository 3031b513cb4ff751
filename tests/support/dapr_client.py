"""A client of Dapr's gRPC API by messages of our own: SDKs register the same names, so they run in processes of their own."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from proxy.api.dapr.common_pb2 import HTTPExtension, InvokeRequest, InvokeResponse
from proxy.api.dapr.runtime_pb2 import (
    GetMetadataRequest,
    GetMetadataResponse,
    InvokeServiceRequest,
    SetMetadataRequest,
    ShutdownRequest,
)

SERVICE = "/dapr.proto.runtime.v1.Dapr"
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a call ended: its code, its text, its response or None, its metadata."""

    code: grpc.StatusCode
    text: str = ""
    response: Any = None
    initial: dict[str, str | bytes]
    trailing: dict[str, str | bytes]


class DaprClient:
    """On a channel to the sidecar; `metadata` goes with every call."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata = ()) -> None:
        self._channel = channel
        self._metadata = metadata

    async def invoke(
        self,
        app_id: str,
        method: str,
        *,
        verb: str = "POST",
        query: str = "",
        data: bytes = b"",
        content_type: str = "",
        type_url: str = "",
        metadata: Metadata = (),
        timeout_s: float = 60.0,
    ) -> Ended:
        """Call InvokeService."""
        extension = HTTPExtension(verb=verb, querystring=query) if verb else None
        message = InvokeRequest(method=method, content_type=content_type, http_extension=extension)
        message.data.value, message.data.type_url = data, type_url
        request = InvokeServiceRequest(id=app_id, message=message)
        return await self.call(
            "InvokeService", request, InvokeResponse, metadata=metadata, timeout_s=timeout_s
        )

    async def get_metadata(self) -> Ended:
        """Call GetMetadata."""
        return await self.call("GetMetadata", GetMetadataRequest(), GetMetadataResponse)

    async def set_metadata(self, key: str, value: str) -> Ended:
        """Call SetMetadata."""
        return await self.call("SetMetadata", SetMetadataRequest(key=key, value=value))

    async def shutdown(self, *, force: bool = False) -> Ended:
        """Call Shutdown."""
        metadata: Metadata = (("dapr-force-shutdown", "true"),) if force else ()
        return await self.call("Shutdown", ShutdownRequest(), metadata=metadata)

    async def call(
        self,
        method: str,
        request: Any = b"",
        response: Any = None,
        *,
        metadata: Metadata = (),
        timeout_s: float = 60.0,
    ) -> Ended:
        """Call any method; `request` a message or bytes, `response` what to read the answer as, None for bytes."""
        made: Callable[..., Any] = self._channel.unary_unary(
            f"{SERVICE}/{method}",
            request_serializer=lambda sent: sent if isinstance(sent, bytes) else sent.SerializeToString(),
            response_deserializer=None if response is None else response.FromString,
        )
        asked = made(request, metadata=(*self._metadata, *metadata), timeout=timeout_s)
        try:
            return await _ended(asked, grpc.StatusCode.OK, "", await asked)
        except grpc.aio.AioRpcError as error:
            return await _ended(asked, error.code(), error.details() or "", None)


async def _ended(asked: Any, code: grpc.StatusCode, text: str, response: Any) -> Ended:
    initial: Awaitable[Any] = asked.initial_metadata()
    trailing: Awaitable[Any] = asked.trailing_metadata()
    return Ended(
        code=code,
        text=text,
        response=response,
        initial=dict(await initial),
        trailing=dict(await trailing),
    )
