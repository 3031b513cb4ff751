"""The gRPC app under test, run as a process: `python -m tests.support.grpc_app [--name NAME] [--port N] [--no-reflection]`.

Prints one JSON line `{"port": N}` once it listens. `--service pkg.Name` serves the same methods under another name, as often as given.
`--callback` serves Dapr's AppCallback/OnInvoke as well, see `on_invoke`.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

import grpc
from grpc_reflection.v1alpha import reflection

from proxy.api.dapr.common_pb2 import InvokeRequest, InvokeResponse
from tests.support.proto.echo_pb2 import (
    DESCRIPTOR,
    EchoReply,
    EchoRequest,
    Metadata,
    ProbeReply,
    ProbeRequest,
)

SERVICE: Final = DESCRIPTOR.services_by_name["EchoService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]


class EchoService:
    """The methods; keeps counts of calls and cancellations for Probe."""

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._calls: dict[str, int] = {}
        self._cancelled: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def unary(self, request: EchoRequest, context: Context) -> EchoReply:
        self._count("Unary")
        await context.send_initial_metadata((("x-app", self._app_name),))
        context.set_trailing_metadata((("x-trailer", "unary"), ("x-trailer-bin", b"\x00\x01")))
        return self._reply(request, context, 0)

    async def client_stream(self, requests: AsyncIterator[EchoRequest], context: Context) -> EchoReply:
        self._count("ClientStream")
        messages = [request.message async for request in requests]
        joined = EchoRequest(message=" ".join(messages))
        return self._reply(joined, context, len(messages))

    async def server_stream(self, request: EchoRequest, context: Context) -> AsyncIterator[EchoReply]:
        self._count("ServerStream")
        finish = self._watch("ServerStream", context)
        for number in range(request.count):
            yield self._reply(request, context, number)
            if request.delay_s:
                await asyncio.sleep(request.delay_s)
        finish()

    async def bidi(self, requests: AsyncIterator[EchoRequest], context: Context) -> AsyncIterator[EchoReply]:
        self._count("Bidi")
        finish = self._watch("Bidi", context)
        number = 0
        async for request in requests:
            yield self._reply(request, context, number)
            number += 1
        finish()

    async def fail(self, request: EchoRequest, context: Context) -> NoReturn:
        self._count("Fail")
        code = next(code for code in grpc.StatusCode if code.value[0] == request.code)
        trailing = (("grpc-status-details-bin", request.details), ("x-failed", "yes"))
        await context.abort(code, request.message, trailing)
        raise AssertionError("abort raises")

    async def script(self, request: EchoRequest, context: Context) -> EchoReply:
        """Ends calls of one `key:14,14,0` (in `message`) with one code after the other, the last one for ever."""
        key, _, codes = request.message.partition(":")
        self._count(key)
        wanted = [int(code) for code in codes.split(",")]
        number = wanted[min(self._calls[key], len(wanted)) - 1]
        if number:
            code = next(code for code in grpc.StatusCode if code.value[0] == number)
            await context.abort(code, f"attempt {self._calls[key]}")
        return self._reply(request, context, self._calls[key])

    async def slow(self, request: EchoRequest, context: Context) -> EchoReply:
        self._count("Slow")
        finish = self._watch("Slow", context)
        await asyncio.sleep(request.delay_s)
        finish()
        return self._reply(request, context, 0)

    async def probe(self, request: ProbeRequest, context: Context) -> ProbeReply:
        try:
            async with asyncio.timeout(request.wait_s):
                while sum(self._cancelled.values()) < request.cancellations:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return ProbeReply(calls=self._calls, cancelled=self._cancelled)

    def _count(self, method: str) -> None:
        self._calls[method] = self._calls.get(method, 0) + 1

    def _watch(self, method: str, context: Context) -> Callable[[], None]:
        """Count a cancellation unless the handler calls what this returns before the call is over.

        A handler need not be told itself: grpcio may be sending for it when the caller leaves.
        """
        finished = asyncio.Event()

        def on_done(_: Any) -> None:
            if not finished.is_set():
                self._cancelled[method] = self._cancelled.get(method, 0) + 1
                self._changed.set()

        callback: Any = on_done  # grpcio's stubs ask for a class of theirs
        context.add_done_callback(callback)
        return finished.set

    def _reply(self, request: EchoRequest, context: Context, number: int) -> EchoReply:
        received = context.invocation_metadata() or ()
        remaining = context.time_remaining()
        return EchoReply(
            message=request.message,
            app=self._app_name,
            metadata=[Metadata(name=name, value=_as_bytes(value)) for name, value in received],
            number=number,
            padding=bytes(request.padding),
            deadline_s=-1.0 if remaining is None else remaining,
        )


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def handlers(service: EchoService) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """The method table of the service."""
    request = EchoRequest.FromString
    reply: Callable[[EchoReply], bytes] = EchoReply.SerializeToString
    probe = grpc.unary_unary_rpc_method_handler(
        service.probe,
        request_deserializer=ProbeRequest.FromString,
        response_serializer=ProbeReply.SerializeToString,
    )
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    from_stream, both = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    return {
        "Unary": unary(service.unary, request_deserializer=request, response_serializer=reply),
        "ClientStream": from_stream(
            service.client_stream, request_deserializer=request, response_serializer=reply
        ),
        "ServerStream": stream(
            service.server_stream, request_deserializer=request, response_serializer=reply
        ),
        "Bidi": both(service.bidi, request_deserializer=request, response_serializer=reply),
        "Fail": unary(service.fail, request_deserializer=request, response_serializer=reply),
        "Script": unary(service.script, request_deserializer=request, response_serializer=reply),
        "Slow": unary(service.slow, request_deserializer=request, response_serializer=reply),
        "Probe": probe,
    }


async def on_invoke(request: InvokeRequest, context: Context) -> InvokeResponse:
    """Tells what it was asked; `fail` ends with a status of its own, `slow` never answers, `bytes` sends as many as its query says.

    `large` has metadata of 12 kB.
    """
    if request.method == "fail":
        trailing = (("grpc-status-details-bin", b"\x08\x09"), ("x-failed", "yes"))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not ready: ümläut %", trailing)
    if request.method == "slow":
        await asyncio.Event().wait()
    large = (("x-large", "y" * 12_000),) if request.method == "large" else ()
    await context.send_initial_metadata(
        (("x-app", "callback"), ("content-language", "de"), ("x-raw-bin", b"\x00\xff"), *large)
    )
    context.set_trailing_metadata((("x-trailer", "yes"), ("x-trailer-bin", b"\x00\x01")))
    extension = request.http_extension
    told = {
        "method": request.method,
        "verb": extension.Verb.Name(extension.verb) if request.HasField("http_extension") else None,
        "query": extension.querystring,
        "content_type": request.content_type,
        "type_url": request.data.type_url,
        "body": request.data.value.decode("latin-1"),
        "left_s": context.time_remaining(),
        "metadata": [
            [name, _as_bytes(value).decode("latin-1")] for name, value in context.invocation_metadata() or ()
        ],
    }
    response = InvokeResponse(content_type="application/json")
    response.data.value = json.dumps(told).encode()
    if request.method == "bytes":
        response.data.value = b"x" * int(extension.querystring)
    if request.method == "packed":
        response.data.type_url = "type.googleapis.com/testing.Echo"
    return response


async def start_server(
    *, name: str, address: str, services: Iterable[str], reflects: bool, has_callback: bool = False
) -> tuple[grpc.aio.Server, int]:
    """Start the server; the port that it listens on."""
    server = grpc.aio.server()
    table = handlers(EchoService(name))
    names: Sequence[str] = (SERVICE, *services)
    for service in names:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, table),))
    if has_callback:
        called = grpc.unary_unary_rpc_method_handler(
            on_invoke,
            request_deserializer=InvokeRequest.FromString,
            response_serializer=InvokeResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("dapr.proto.runtime.v1.AppCallback", {"OnInvoke": called}),)
        )
    if reflects:
        reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(address)
    await server.start()
    return server, port


async def main(arguments: list[str]) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="app")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--service", action="append", default=[])
    parser.add_argument("--no-reflection", action="store_true")
    parser.add_argument("--callback", action="store_true")
    options = parser.parse_args(arguments)
    server, port = await start_server(
        name=options.name,
        address=f"{options.host}:{options.port}",
        services=options.service,
        reflects=not options.no_reflection,
        has_callback=options.callback,
    )
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(0)
