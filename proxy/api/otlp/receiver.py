"""What becomes of an exporter's request: it goes on to the collectors as it came. Spans also stay in memory for a while."""

import asyncio
from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError

from proxy.api.dapr.codes import INVALID_ARGUMENT
from proxy.api.otlp.answers import Refusal
from telemetry.logs import Logger
from telemetry.otlp.json_form import JsonFormError, from_json
from telemetry.otlp.messages_pb2 import TracesRequest
from telemetry.otlp.reading import PIECE, spans_of, trimmed
from telemetry.otlp.received import Received
from telemetry.otlp.relays import Relays
from telemetry.otlp.requests import KINDS, Request, item_count
from telemetry.otlp.target import Signal
from telemetry.series import Counter
from telemetry.tracing import Tracer

_FATES: Final[Mapping[Signal, str]] = {
    "traces": "spans of the app stay in memory alone",
    "metrics": "metrics of the app are dropped",
    "logs": "logs of the app are dropped",
}
_NO_COLLECTOR: Final = (
    "no collector is configured for them: "
    "set OTEL_EXPORTER_OTLP_ENDPOINT for the proxy, or spec.tracing.otel of its Configuration (neither counts with OTEL_SDK_DISABLED=true)"
)


class Receiver:
    """Takes requests. counter: of spans, by what came of them. Mutable state: of which signals the log has said where they end."""

    def __init__(self, tracer: Tracer, relays: Relays, log: Logger, counter: Counter) -> None:
        self._tracer = tracer
        self._relays = relays
        self._log = log
        self._counter = counter
        self._told: set[Signal] = set()

    async def take(self, body: bytes, signal: Signal, *, is_json: bool) -> tuple[int, str]:
        """Take a request; how many items were lost by that, its own or older ones in the queue, and why. Raises Refusal."""
        kind = KINDS[signal]
        try:
            request: Request = from_json(body, kind) if is_json else kind.FromString(body)
        except (DecodeError, JsonFormError) as error:
            raise Refusal(INVALID_ARGUMENT, f"not a request of OTLP: {error}") from error
        received = Received(request.SerializeToString() if is_json else body, item_count(request))
        if isinstance(request, TracesRequest):
            return await self._take_spans(request, received)
        if not received.items:
            return 0, ""
        lost = self._relays.forward(signal, received)
        if lost is None:
            self._tell(signal)
            return received.items, f"{_FATES[signal]}, as {_NO_COLLECTOR}"
        return min(received.items, lost), _overrun(lost) if lost else ""

    async def _take_spans(self, request: TracesRequest, received: Received) -> tuple[int, str]:
        count, kept = received.items, 0
        piece = []
        for span in spans_of(request):
            piece.append(trimmed(span))
            kept += 1
            if len(piece) == PIECE:
                self._tracer.keep_of_app(piece)
                piece = []
                await asyncio.sleep(0)
        self._tracer.keep_of_app(piece)
        lost = 0
        if kept:
            if not self._tracer.has_forwarders:
                self._tell("traces")
            lost = self._tracer.forward(received)
        unnamed = count - kept
        self._counter.add("taken", amount=kept)
        if unnamed:
            self._counter.add("without-ids", amount=unnamed)
        whys = []
        if unnamed:
            whys.append(f"{unnamed} without a trace or span id")
        if lost:
            whys.append(_overrun(lost))
        return min(count, unnamed + lost), ", ".join(whys)

    def _tell(self, signal: Signal) -> None:
        if signal not in self._told:
            self._told.add(signal)
            self._log.info(f"{_FATES[signal]}, as {_NO_COLLECTOR}")


def _overrun(lost: int) -> str:
    return f"{lost} older ones dropped, as the collector does not keep up"
