"""OTLP's exporters: of our own spans, and of requests that the app sent here, which go on as they came.

protobuf and grpcio are loaded with the first batch, off the loop: neither a start nor a call waits for them.
"""

import asyncio
from collections.abc import Sequence
from importlib import import_module

from telemetry.errors import PartialExportError
from telemetry.otlp.received import Received
from telemetry.otlp.senders import GrpcSender, HttpSender, Sender
from telemetry.otlp.target import OtlpTarget, Signal
from telemetry.spans import Span

#: Spans encoded without letting the loop run: well under 2 ms.
PIECE = 64
#: A larger batch goes in several requests; gRPC servers take 4 MiB unless told otherwise.
BODY_LIMIT_BYTES = 1024 * 1024

Pairs = tuple[tuple[str, str], ...]


class Delivery:
    """Sends requests of one signal to one collector, and reads what of them it did not want. Owns the sender."""

    def __init__(self, target: OtlpTarget, signal: Signal, marks: Pairs = ()) -> None:
        """`marks`: headers beside those of the target. Raises: ExporterConfigError for an invalid target address."""
        self._signal: Signal = signal
        self._is_json = target.is_json and target.protocol == "http"
        kind = GrpcSender if target.protocol == "grpc" else HttpSender
        self._sender: Sender = kind(target, signal, marks)

    async def send(self, pieces: Sequence[bytes]) -> None:
        """Send pieces, each a request by itself, joined to as few as the limit allows.

        Raises: ExportError; PartialExportError where the collector took all requests, but not all that is in them.
        """
        rejected, why = 0, ""
        for body in _joined(pieces):
            count, text = await self._post(body)
            rejected, why = rejected + count, text or why
        if rejected or why:
            raise PartialExportError(rejected, why)

    async def close(self) -> None:
        """Ends the connection."""
        await self._sender.close()

    async def _post(self, body: bytes) -> tuple[int, str]:
        from telemetry.otlp import answers  # noqa: PLC0415 - see above

        if self._is_json:
            from telemetry.otlp import json_form  # noqa: PLC0415

            body = json_form.request_json(body, self._signal)
        return answers.rejected(await self._sender.send(body), is_json=self._is_json)


def _joined(pieces: Sequence[bytes]) -> list[bytes]:
    """The same as few requests; protobuf joins messages by appending one to the other."""
    bodies: list[list[bytes]] = []
    size = 0
    for piece in pieces:
        if not bodies or size + len(piece) > BODY_LIMIT_BYTES:
            bodies.append([])
            size = 0
        bodies[-1].append(piece)
        size += len(piece)
    return [b"".join(body) for body in bodies]


class OtlpExporter:
    """Sends our own spans. `resource`: attributes beside the name of the service."""

    name = "otlp"

    def __init__(self, target: OtlpTarget, service: str, resource: Pairs = (), marks: Pairs = ()) -> None:
        """Raises: ExporterConfigError for an invalid target address."""
        self._delivery = Delivery(target, "traces", marks)
        self._service = service
        self._resource = resource

    async def export(self, spans: Sequence[Span]) -> None:
        """Raises: ExportError when the collector did not take a part of the batch."""
        encoding = await asyncio.to_thread(import_module, "telemetry.otlp.encoding")
        resource = encoding.resource_of(self._service, self._resource)
        pieces = []
        for start in range(0, len(spans), PIECE):
            pieces.append(encoding.traces_request(spans[start : start + PIECE], resource))
            await asyncio.sleep(0)
        await self._delivery.send(pieces)

    async def close(self) -> None:
        """Ends the connection."""
        await self._delivery.close()


def forwarder_name(signal: Signal) -> str:
    """What the exporter of a signal of the app is called: a label value."""
    return "otlp-app" if signal == "traces" else f"otlp-app-{signal}"


class OtlpForwarder:
    """Sends what the app has sent of one signal, as it came."""

    def __init__(self, target: OtlpTarget, marks: Pairs = (), signal: Signal = "traces") -> None:
        """Raises: ExporterConfigError for an invalid target address."""
        self.name = forwarder_name(signal)
        self._delivery = Delivery(target, signal, marks)

    async def export(self, items: Sequence[Received]) -> None:
        """Raises: ExportError when the collector did not take a part of it."""
        await self._delivery.send([item.body for item in items])

    async def close(self) -> None:
        """Ends the connection."""
        await self._delivery.close()
