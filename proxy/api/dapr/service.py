"""The four methods of Dapr's gRPC API, over one function that makes HTTP calls by the sidecar's own rules."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty
from msgspec.structs import replace

from proxy.api.dapr.codes import DEADLINE_EXCEEDED, INVALID_ARGUMENT, RESOURCE_EXHAUSTED
from proxy.api.dapr.common_pb2 import InvokeResponse
from proxy.api.dapr.describing import metadata_response
from proxy.api.dapr.invocation import (
    Answer,
    HttpCall,
    answer_to,
    failed,
    header_fields,
    http_call,
    too_large,
    traced,
)
from proxy.api.dapr.receiving import Context, unary
from proxy.api.dapr.runtime_pb2 import (
    GetMetadataRequest,
    GetMetadataResponse,
    InvokeServiceRequest,
    SetMetadataRequest,
    ShutdownRequest,
)
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.errors import HEADER
from proxy.wire.deadlines import TIMEOUT, left_ms
from proxy.wire.http_client import LocalHttpError, LocalResponse, TooLargeError

SERVICE: Final = "dapr.proto.runtime.v1.Dapr"
CALLS: Final = 1_024  # of InvokeService at once; each holds a message and a connection to the engine
_UNBOUND_S: Final = 86_400.0  # of a call without a deadline, whose caller stays that long
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

Invoke = Callable[[HttpCall, float], Awaitable[LocalResponse]]
"""Makes an HTTP call within so many seconds. Raises LocalHttpError, TimeoutError."""
Refused = Callable[[Headers, Cause, int], bytes]
"""Is told of a call with this metadata that came to no HTTP call, why, and its code; returns the `traceparent` for its answer."""


class SidecarApi(Protocol):
    """What the sidecar's own API knows and does."""

    def metadata(self) -> Mapping[str, Any]:
        """What it says of itself."""

    def is_ready(self, *, with_app: bool) -> bool:
        """Whether it can call out and, with the app, be called."""

    def readiness(self, *, with_app: bool) -> AsyncGenerator[bool]:
        """The same now, and each time that it changes; ends with the sidecar."""

    def put_metadata(self, key: str, value: str) -> str | None:
        """Keep a value; why not."""

    def shut_down(self, *, force: bool) -> None:
        """Ask for the end."""


class DaprService:
    """Handlers of one sidecar. max_bytes: of a message, either way. head_bytes: of what becomes a call's head.

    Mutable state: how many calls are being carried.
    """

    def __init__(
        self, api: SidecarApi, invoke: Invoke, refused: Refused, max_bytes: int, head_bytes: int
    ) -> None:
        self._api = api
        self._refused = refused
        self._invoke = invoke
        self._max_bytes = max_bytes
        self._head_bytes = head_bytes
        self._calls = 0

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """For a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "InvokeService": unary(self.invoke_service, InvokeServiceRequest),
                "GetMetadata": unary(self.get_metadata, GetMetadataRequest),
                "SetMetadata": unary(self.set_metadata, SetMetadataRequest),
                "Shutdown": unary(self.shutdown, ShutdownRequest),
            },
        )

    async def invoke_service(self, request: InvokeServiceRequest, context: Context) -> InvokeResponse:
        """Call a method of an app."""
        call = http_call(request, context.invocation_metadata() or (), self._head_bytes)
        if isinstance(call, Answer):
            answer = self._traced(call, Cause.BAD_REQUEST, context)
        else:
            answer = await self._carried(request.id, call, context)
        if answer.initial:
            await context.send_initial_metadata(answer.initial)
        if answer.response is None:
            code = _CODES.get(answer.code, grpc.StatusCode.UNKNOWN)
            await context.abort(code, answer.message, answer.trailing)
        if answer.trailing:
            context.set_trailing_metadata(answer.trailing)
        return answer.response

    async def _carried(self, app_id: str, call: HttpCall, context: Context) -> Answer:
        if self._calls >= CALLS:
            text = f"{CALLS} calls are in flight, which is the limit"
            return self._traced(failed(app_id, text, code=RESOURCE_EXHAUSTED), Cause.SHED, context)
        self._calls += 1
        try:
            return await self._answer(app_id, call, context)
        finally:
            self._calls -= 1

    def _traced(self, answer: Answer, cause: Cause, context: Context) -> Answer:
        headers = header_fields(context.invocation_metadata() or ())
        return traced(answer, self._refused(headers, cause, answer.code))

    async def _answer(self, app_id: str, call: HttpCall, context: Context) -> Answer:
        left_s = context.time_remaining()
        if left_s is not None:
            call = replace(call, headers=(*call.headers, (TIMEOUT.decode(), str(left_ms(left_s)))))
        try:
            found = await self._invoke(call, _UNBOUND_S if left_s is None else left_s)
        except TimeoutError:
            return failed(app_id, "no answer before the call's deadline", code=DEADLINE_EXCEEDED)
        except TooLargeError:
            return too_large(app_id, self._max_bytes)
        except LocalHttpError as error:
            mark = ((HEADER.decode(), Cause.RESET_LATE.value),)
            return failed(app_id, f"the answer broke off: {error.reason}", trailing=mark)
        return answer_to(app_id, found, self._max_bytes)

    async def get_metadata(self, _: GetMetadataRequest, __: Context) -> GetMetadataResponse:
        """Describe the sidecar."""
        return metadata_response(self._api.metadata())

    async def set_metadata(self, request: SetMetadataRequest, context: Context) -> Empty:
        """Keep a value; without a key nothing."""
        fault = self._api.put_metadata(request.key, request.value) if request.key else None
        if fault is not None:
            await context.abort(_CODES[INVALID_ARGUMENT], fault)
        return Empty()

    async def shutdown(self, _: ShutdownRequest, context: Context) -> Empty:
        """End the sidecar."""
        metadata = context.invocation_metadata() or ()
        force = any(name == "dapr-force-shutdown" and str(text).lower() == "true" for name, text in metadata)
        self._api.shut_down(force=force)
        return Empty()
