"""A typed client of the gRPC app under test, for whichever channel leads to it."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc

from tests.support.grpc_app import SERVICE
from tests.support.proto.echo_pb2 import EchoReply, EchoRequest, ProbeReply, ProbeRequest

Metadata = tuple[tuple[str, str | bytes], ...]
DEFAULT_TIMEOUT_S: Final = 30.0


class EchoClient:
    """Calls EchoService over a channel; `metadata` goes with each call (`dapr-app-id`), `service` renames the service."""

    def __init__(self, channel: grpc.aio.Channel, *, metadata: Metadata = (), service: str = SERVICE) -> None:
        self._channel = channel
        self._metadata = metadata
        self._prefix = f"/{service}/"

    def unary(
        self, request: EchoRequest, *, method: str = "Unary", timeout_s: float | None = DEFAULT_TIMEOUT_S
    ) -> Any:
        """The call object of Unary, Fail or Slow; await it for the EchoReply."""
        call = self._channel.unary_unary(
            self._prefix + method,
            request_serializer=EchoRequest.SerializeToString,
            response_deserializer=EchoReply.FromString,
        )
        return call(request, timeout=timeout_s, metadata=self._metadata)

    async def client_stream(
        self, requests: Iterable[EchoRequest], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> EchoReply:
        """ClientStream with all of the requests."""
        call = self._channel.stream_unary(
            self._prefix + "ClientStream",
            request_serializer=EchoRequest.SerializeToString,
            response_deserializer=EchoReply.FromString,
        )
        reply: EchoReply = await call(_aiter(requests), timeout=timeout_s, metadata=self._metadata)
        return reply

    def server_stream(self, request: EchoRequest, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Any:
        """The call object of ServerStream; iterate it for replies."""
        call = self._channel.unary_stream(
            self._prefix + "ServerStream",
            request_serializer=EchoRequest.SerializeToString,
            response_deserializer=EchoReply.FromString,
        )
        return call(request, timeout=timeout_s, metadata=self._metadata)

    def bidi(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Any:
        """The call object of Bidi: `write`, `read`, `done_writing`."""
        call = self._channel.stream_stream(
            self._prefix + "Bidi",
            request_serializer=EchoRequest.SerializeToString,
            response_deserializer=EchoReply.FromString,
        )
        return call(None, timeout=timeout_s, metadata=self._metadata)

    async def probe(self, *, cancellations: int = 0, wait_s: float = 0.0) -> ProbeReply:
        """What the app saw; waits until so many cancellations were seen, for at most `wait_s`."""
        call = self._channel.unary_unary(
            self._prefix + "Probe",
            request_serializer=ProbeRequest.SerializeToString,
            response_deserializer=ProbeReply.FromString,
        )
        request = ProbeRequest(cancellations=cancellations, wait_s=wait_s)
        reply: ProbeReply = await call(request, timeout=wait_s + DEFAULT_TIMEOUT_S, metadata=self._metadata)
        return reply


async def _aiter(requests: Iterable[EchoRequest]) -> AsyncIterator[EchoRequest]:
    for request in requests:
        yield request
