"""Propagates the trace context of incoming requests to outgoing calls; it starts no span and reports none.

Nothing outside a service can know which of its calls belongs to which request, so each service passes the
headers on. An OpenTelemetry instrumentation does the same; this is all there is to it.
"""

import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import grpc

CARRIED = frozenset({"traceparent", "tracestate", "baggage"})

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

_context: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("trace_context", default=())


def receive(headers: Iterable[tuple[str, str | bytes]]) -> None:
    """Keep the trace headers of the request that this thread now serves, in place of the last one's."""
    lowered = ((name.lower(), value) for name, value in headers)
    _context.set(tuple((n, v) for n, v in lowered if n in CARRIED and isinstance(v, str)))


def current() -> tuple[tuple[str, str], ...]:
    """The trace headers to send with a call made for the request being served."""
    return _context.get()


def trace_id() -> str:
    """The trace being served as 32 hex digits, or "" if there is none."""
    found = _TRACEPARENT.fullmatch(dict(current()).get("traceparent", ""))
    return found[1] if found else ""


_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class ReceiveContext(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Keeps the caller's trace context while a unary call is served."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wrap the handler of a unary call; leave others as they are."""
        handler = continuation(handler_call_details)
        inner = None if handler is None else handler.unary_unary
        if handler is None or inner is None:
            return handler

        def serve(request: object, context: grpc.ServicerContext) -> object:
            receive((entry[0], entry[1]) for entry in context.invocation_metadata())
            return inner(request, context)

        return grpc.unary_unary_rpc_method_handler(
            serve, handler.request_deserializer, handler.response_serializer
        )


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class ForwardContext(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Adds the kept trace context to every call made."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:  # noqa: ANN401
        """Make the call with the trace headers appended to its metadata."""
        extended = _Details(
            details.method,
            details.timeout,
            (*(details.metadata or ()), *current()),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(extended, request)
