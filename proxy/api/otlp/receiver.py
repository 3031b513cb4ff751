"""What becomes of a request that exports spans: they stay in memory for a while, and the request goes on to the collectors as it came."""

import asyncio
from typing import Final

from google.protobuf.message import DecodeError

from proxy.api.dapr.codes import INVALID_ARGUMENT
from proxy.api.otlp.answers import Refusal
from telemetry.logs import Logger
from telemetry.otlp.json_form import JsonFormError, from_json
from telemetry.otlp.messages_pb2 import TracesRequest
from telemetry.otlp.reading import PIECE, span_count, spans_of, trimmed
from telemetry.otlp.received import Received
from telemetry.series import Counter
from telemetry.tracing import Tracer

_NO_COLLECTOR: Final = (
    "spans of the app stay in memory alone, as no collector is configured: "
    "set OTEL_EXPORTER_OTLP_ENDPOINT, or spec.tracing of a Configuration"
)


class Receiver:
    """Takes requests. counter: of spans, by what came of them. Mutable state: whether the log has said where they end."""

    def __init__(self, tracer: Tracer, log: Logger, counter: Counter) -> None:
        self._tracer = tracer
        self._log = log
        self._counter = counter
        self._has_told = False

    async def take(self, body: bytes, *, is_json: bool) -> tuple[int, str]:
        """Take a request; how many spans were lost by that, its own or older ones in the queue, and why. Raises Refusal."""
        try:
            request = from_json(body, TracesRequest) if is_json else TracesRequest.FromString(body)
        except (DecodeError, JsonFormError) as error:
            raise Refusal(INVALID_ARGUMENT, f"not a request of OTLP: {error}") from error
        count, kept = span_count(request), 0
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
            self._tell()
            lost = self._tracer.forward(Received(request.SerializeToString() if is_json else body, count))
        unnamed = count - kept
        self._counter.add("taken", amount=kept)
        if unnamed:
            self._counter.add("without-ids", amount=unnamed)
        whys = []
        if unnamed:
            whys.append(f"{unnamed} without a trace or span id")
        if lost:
            whys.append(f"{lost} older ones dropped, as the collector does not keep up")
        return min(count, unnamed + lost), ", ".join(whys)

    def _tell(self) -> None:
        if not self._has_told and not self._tracer.has_forwarders:
            self._has_told = True
            self._log.info(_NO_COLLECTOR)
