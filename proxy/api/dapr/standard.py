"""gRPC's own services about this API: health checking, and server reflection in its two versions.

The decider sends them here where no app is named. Without `Watch` of health, which ends with UNIMPLEMENTED: clients then take the server
as healthy (gRPC's doc/health-checking.md), and of what makes a sidecar ready nothing tells when it changes.
"""

from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio  # type: ignore[attr-defined] # older stubs

from proxy.api.dapr.receiving import Context, unary
from proxy.api.dapr.service import SERVICE, SidecarApi

_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
# The messages of v1 and v1alpha are the same.
_REFLECTION: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def handlers(api: SidecarApi) -> "tuple[grpc.GenericRpcHandler[Any, Any], ...]":
    """For a server."""
    services = (SERVICE, _HEALTH, *_REFLECTION)
    servicer = aio.ReflectionServicer(services, _Descriptors())  # type: ignore[attr-defined] # older stubs
    reflect = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )

    async def check(request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in ("", SERVICE):
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"ask for {SERVICE}, or for no service: the sidecar with its app"
            )
        is_ready = api.is_ready(with_app=not request.service)
        return HealthCheckResponse(
            status=HealthCheckResponse.SERVING if is_ready else HealthCheckResponse.NOT_SERVING
        )

    return (
        grpc.method_handlers_generic_handler(_HEALTH, {"Check": unary(check, HealthCheckRequest)}),
        *(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": reflect})
            for name in _REFLECTION
        ),
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
