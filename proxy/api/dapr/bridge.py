"""The server that calls OnInvoke of a gRPC app: HTTP from the engine on one private socket, gRPC back into it on another.

The engine that takes the gRPC call to the app knows the app's port and whether it wants TLS, and says what went wrong.
"""

from collections.abc import Callable, Iterable
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
from proxy.wire.http_client import LocalResponse

_METHOD: Final = "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
_HANDLER_S: Final = 86_400.0  # who calls has a deadline, or hangs up


async def serve(app_id: str, path: Path, way: Path, max_bytes: int, started: Callable[[str], None]) -> None:
    """Answer on `path` until cancelled, calling the app by `way`; `started` is told the address. max_bytes: of a message, either way.

    Raises ListenError.
    """
    options = (*limits(max_bytes), ("grpc.enable_retries", 0))
    async with grpc.aio.insecure_channel(f"unix:{way}", options=options) as channel:
        server = LocalHttp(Bridge(app_id, channel).answer, body_bytes=max_bytes, handler_s=_HANDLER_S)
        started(await server.serve(f"unix:{path}"))
        await server.run()


class Bridge:
    """Calls one app on a channel."""

    def __init__(self, app_id: str, channel: grpc.aio.Channel) -> None:
        self._app_id = app_id
        self._call: Any = channel.unary_unary(
            _METHOD,
            request_serializer=InvokeRequest.SerializeToString,
            response_deserializer=InvokeResponse.FromString,
        )

    async def answer(self, request: LocalRequest) -> LocalResponse:
        """One call."""
        trace_id = dict(request.headers).get(b"traceparent", b"")[3:35].decode("latin-1")
        try:
            message, metadata = on_invoke(request)
        except UnknownVerbError as error:
            return failed(self._app_id, Cause.UNSUPPORTED, str(error), trace_id)
        call = self._call(message, metadata=metadata)
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            ended = Ended(
                code=error.code().value[0],
                text=error.details() or "",
                initial=_pairs(error.initial_metadata()),
                trailing=_pairs(error.trailing_metadata()),
            )
        else:
            ended = Ended(
                code=0,
                response=response,
                initial=_pairs(await call.initial_metadata()),
                trailing=_pairs(await call.trailing_metadata()),
            )
        return http_answer(self._app_id, ended, trace_id)


def _pairs(metadata: Iterable[Any]) -> Metadata:
    return tuple((name, value) for name, value in metadata)
