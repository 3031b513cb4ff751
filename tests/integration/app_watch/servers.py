"""Apps whose answers a test has written down, in the test's own loop."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from grpc_reflection.v1alpha import reflection_pb2

HEALTH = "dapr.proto.runtime.v1.AppCallbackHealthCheck"
V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
Handler: TypeAlias = "grpc.GenericRpcHandler[bytes, bytes]"
Context = grpc.aio.ServicerContext[Any, Any]


class Script:
    """Answers one after the other, the last one for ever; `asked` counts the questions."""

    def __init__(self, *answers: Any) -> None:
        self.asked = 0
        self._answers: Sequence[Any] = answers

    def next(self) -> Any:
        self.asked += 1
        return self._answers[min(self.asked, len(self._answers)) - 1]


def listed(*names: str) -> bytes:
    """A reflection answer."""
    services = [reflection_pb2.ServiceResponse(name=name) for name in names]
    made = reflection_pb2.ServerReflectionResponse(
        list_services_response=reflection_pb2.ListServiceResponse(service=services)
    )
    content: bytes = made.SerializeToString()
    return content


async def _say(script: Script, context: Context) -> bytes:
    answer = script.next()
    if isinstance(answer, grpc.StatusCode):
        await context.abort(answer, "as scripted")
    if callable(answer):
        answer = await answer()
    assert isinstance(answer, bytes)
    return answer


def health(script: Script) -> Handler:
    """A health check that answers by script: bytes, a status code, or what a function awaits."""

    async def check(request: bytes, context: Context) -> bytes:
        return await _say(script, context)

    methods = {"HealthCheck": grpc.unary_unary_rpc_method_handler(check)}
    return grpc.method_handlers_generic_handler(HEALTH, methods)


def reflection(version: str, script: Script) -> Handler:
    """Server reflection of one version that answers every question by script."""

    async def info(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            asked = reflection_pb2.ServerReflectionRequest.FromString(request)
            assert asked.WhichOneof("message_request") == "list_services"
            yield await _say(script, context)

    methods = {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(info)}
    return grpc.method_handlers_generic_handler(version, methods)


@asynccontextmanager
async def grpc_server(
    *handlers: Handler,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
    register: Callable[[grpc.aio.Server], None] = lambda server: None,
) -> AsyncIterator[int]:
    """A gRPC server on loopback; its port."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    register(server)
    where = f"127.0.0.1:{port}"
    bound = (
        server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    )
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)


def tls_server(folder: Path, certificate: bytes, key: bytes) -> ssl.SSLContext:
    """A TLS context for an app, whose certificate nobody trusts."""
    path = folder / "app.pem"
    path.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
