"""gRPC's own services about this API: health checking, and server reflection in its two versions.

The decider sends them here where no app is named.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection import aio  # type: ignore[attr-defined] # older stubs
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from proxy.api.dapr.leaving import Leaving
from proxy.api.dapr.receiving import Context, streaming, unary
from proxy.api.dapr.service import SERVICE, SidecarApi

WATCHES: Final = 256  # of health at once; each holds a stream in the engine and one here
_KNOWN: Final = ("", SERVICE)
_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# The messages of v1 and v1alpha are the same.
_REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def handlers(api: SidecarApi, leaving: Leaving) -> "tuple[grpc.GenericRpcHandler[Any, Any], ...]":
    """For a server."""
    services = (SERVICE, _HEALTH, *_REFLECTION)
    servicer = aio.ReflectionServicer(services, _Descriptors())  # type: ignore[attr-defined] # older stubs

    async def answer(requests: AsyncIterator[ServerReflectionRequest], context: Context) -> None:
        try:
            async for response in servicer.ServerReflectionInfo(leaving.requests(requests), context):
                await context.write(response)
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the sidecar is shutting down")

    reflect = grpc.stream_stream_rpc_method_handler(
        answer,
        request_deserializer=ServerReflectionRequest.FromString,
        response_serializer=ServerReflectionResponse.SerializeToString,
    )

    health = Health(api)
    return (
        grpc.method_handlers_generic_handler(
            _HEALTH,
            {
                "Check": unary(health.check, HealthCheckRequest),
                "Watch": streaming(health.watch, HealthCheckRequest),
            },
        ),
        *(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": reflect})
            for name in _REFLECTION
        ),
    )


class Health:
    """Health checking (gRPC's doc/health-checking.md). Mutable state: how many watch."""

    def __init__(self, api: SidecarApi) -> None:
        self._api = api
        self._watches = 0

    async def check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Whether the sidecar is ready."""
        if request.service not in _KNOWN:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"unknown service: ask for {SERVICE}, or for none, which means the sidecar with its app",
            )
        return _response(is_ready=self._api.is_ready(with_app=not request.service))

    async def watch(
        self, request: HealthCheckRequest, context: Context
    ) -> AsyncGenerator[HealthCheckResponse]:
        """The same, and each change. Ends as the sidecar leaves, which it is told before, as calls under way are waited for."""
        if self._watches >= WATCHES:
            text = f"{WATCHES} streams watch this sidecar's health, which is the limit: use Check"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._watches += 1
        try:
            async with aclosing(self._api.readiness(with_app=not request.service)) as changes:
                if request.service not in _KNOWN:
                    yield HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
                async for is_ready in changes:
                    if request.service in _KNOWN:
                        yield _response(is_ready=is_ready)
        finally:
            self._watches -= 1


def _response(*, is_ready: bool) -> HealthCheckResponse:
    return HealthCheckResponse(
        status=HealthCheckResponse.SERVING if is_ready else HealthCheckResponse.NOT_SERVING
    )


class _Descriptors:
    """The pool of descriptors, as the servicer asks it; methods are found as well, by which grpcurl describes them."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        """The file of a message, service, method or the like. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file
