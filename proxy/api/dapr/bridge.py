"""The server that calls OnInvoke of a gRPC app: HTTP from the engine on one private socket, gRPC back into it on another.

The engine that takes the gRPC call to the app knows the app's port and whether it wants TLS, and says what went wrong.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from proxy.api.dapr.callback import Ended, UnknownVerbError, failed, http_answer, on_invoke
from proxy.api.dapr.common_pb2 import InvokeRequest, InvokeResponse
from proxy.api.dapr.invocation import Metadata
from proxy.api.dapr.receiving import limits
from proxy.api.server import LocalHttp, LocalRequest
from proxy.contract.plan import Cause
from proxy.wire.deadlines import read_left_s
from proxy.wire.http_client import LocalResponse
from telemetry.client_meters import RpcEnded

_METHOD: Final = "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
_CHANNELS: Final = 8  # each is a connection to the engine, which takes --max-streams calls at once: 250
_HANDLER_S: Final = 86_400.0  # who calls has a deadline, or hangs up


async def serve(
    app_id: str,
    path: Path,
    way: Path,
    max_bytes: int,
    started: Callable[[str], None],
    *,
    told: RpcEnded | None = None,
) -> None:
    """Answer on `path` until cancelled, calling the app by `way`; `started` is told the address. max_bytes: of a message, either way.

    told: of each call of the app.
    Raises ListenError.
    """
    own = ("grpc.use_local_subchannel_pool", 1)  # else channels share one connection
    options = (*limits(max_bytes), ("grpc.enable_retries", 0), own)
    async with AsyncExitStack() as closing:
        opened = [grpc.aio.insecure_channel(f"unix:{way}", options=options) for _ in range(_CHANNELS)]
        channels = [await closing.enter_async_context(channel) for channel in opened]
        server = LocalHttp(Bridge(app_id, channels, told).answer, body_bytes=max_bytes, handler_s=_HANDLER_S)
        started(await server.serve(f"unix:{path}"))
        await server.run()


class Bridge:
    """Calls one app on some channels. Mutable state: how many calls are in flight on each."""

    def __init__(
        self, app_id: str, channels: Sequence[grpc.aio.Channel], told: RpcEnded | None = None
    ) -> None:
        self._app_id = app_id
        self._told = told
        self._calls: list[Any] = [
            channel.unary_unary(
                _METHOD,
                request_serializer=InvokeRequest.SerializeToString,
                response_deserializer=InvokeResponse.FromString,
            )
            for channel in channels
        ]
        self._in_flight = [0] * len(channels)

    async def answer(self, request: LocalRequest) -> LocalResponse:
        """One call."""
        trace_id = dict(request.headers).get(b"traceparent", b"")[3:35].decode("latin-1")
        try:
            message, metadata = on_invoke(request)
        except UnknownVerbError as error:
            return failed(self._app_id, Cause.UNSUPPORTED, str(error), trace_id)
        least = self._in_flight.index(min(self._in_flight))
        self._in_flight[least] += 1
        began = time.monotonic()
        try:
            left_s = read_left_s(request.headers, time.time())
            ended = await self._ended(self._calls[least](message, metadata=metadata, timeout=left_s))
        finally:
            self._in_flight[least] -= 1
        if self._told is not None:
            received = 0 if ended.response is None else ended.response.ByteSize()
            self._told(_METHOD, ended.code, time.monotonic() - began, message.ByteSize(), received)
        return http_answer(self._app_id, ended, trace_id)

    async def _ended(self, call: Any) -> Ended:  # noqa: ANN401
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            return Ended(
                code=error.code().value[0],
                text=error.details() or "",
                initial=_pairs(error.initial_metadata()),
                trailing=_pairs(error.trailing_metadata()),
            )
        return Ended(
            code=0,
            response=response,
            initial=_pairs(await call.initial_metadata()),
            trailing=_pairs(await call.trailing_metadata()),
        )


def _pairs(metadata: Iterable[Any]) -> Metadata:
    return tuple((name, value) for name, value in metadata)
