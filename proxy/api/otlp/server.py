"""The private socket where the engine hands over what the app exports, over HTTP and gRPC. What reads it is loaded with the first call.

grpcio is not needed: the calls are unary, and a message out of a frame is all there is to them.
"""

import asyncio
import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.api.dapr.codes import INTERNAL, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from proxy.api.daprd.framing import HEAD, ending, framed
from proxy.api.http2_sockets import Http2Sockets
from proxy.api.otlp import answers
from proxy.api.otlp.answers import Refusal
from proxy.api.otlp.unpacking import MAX_BYTES, unframed, unpacked
from proxy.contract.head import Headers
from proxy.wire.streams import Downstream, RawHead
from proxy.wire.target import clean
from telemetry.logs import Logger
from telemetry.otlp.relays import Relays
from telemetry.otlp.target import PATHS, SERVICES, Signal
from telemetry.series import Counter
from telemetry.tracing import Tracer

if TYPE_CHECKING:
    from proxy.api.otlp.receiver import Receiver

CALLS: Final = 16  # at once; each may hold MAX_BYTES, packed and unpacked
_LOG: Final = logging.getLogger("postern.otlp")
_REQUEST_S: Final = 30.0  # from a request's head to its end


class OtlpServer:
    """Takes requests on `path`. own_mark: header and value that our own exporters send, so that what they send here is noticed.

    Mutable state: how many calls are in hand, and the receiver once there is one.
    """

    def __init__(
        self,
        path: Path,
        tracer: Tracer,
        relays: Relays,
        log: Logger,
        counter: Counter,
        *,
        own_mark: tuple[bytes, bytes],
    ) -> None:
        self.path = path
        self.own_mark = own_mark
        self.calls = 0
        self._tracer = tracer
        self._relays = relays
        self._log = log
        self._counter = counter
        self._receiver: Receiver | None = None
        self.sockets = Http2Sockets("otlp")

    async def listen(self) -> str:
        """The address. Raises ListenError."""
        return await self.sockets.listen(self.path, lambda down, head: _Call(self, down, head))

    async def run(self) -> None:
        """Answer until cancelled, then close everything."""
        await self.sockets.run()

    async def receiver(self) -> "Receiver":
        """What takes requests; loads protobuf."""
        if self._receiver is None:
            module = await asyncio.to_thread(import_module, "proxy.api.otlp.receiver")
            made = module.Receiver(self._tracer, self._relays, self._log, self._counter)
            self._receiver = self._receiver or made
        return self._receiver


class _Call:
    """RequestEvents of one call: gathers the body, then has it taken. Mutable state: the body, the task, and whether it is open."""

    def __init__(self, server: OtlpServer, down: Downstream, head: RawHead) -> None:
        self._server = server
        self._down = down
        self._is_grpc = head.protocol == "grpc"
        self._signal = _signal_of(head)
        self._headers = dict(head.headers)
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._is_open = True
        self._timer = asyncio.get_running_loop().call_later(_REQUEST_S, self._too_slow)
        server.calls += 1
        if server.calls > CALLS:
            self._refuse(Refusal(answers.UNAVAILABLE, f"{CALLS} exports are under way, which is the limit"))

    @property
    def _is_json(self) -> bool:
        return (
            self._headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"
        )

    def request_data(self, data: bytes) -> None:
        """See RequestEvents."""
        self._down.ack(len(data))
        if not self._is_open:
            return
        self._body += data
        if len(self._body) > MAX_BYTES:
            self._refuse(
                Refusal(RESOURCE_EXHAUSTED, f"a request is at most {MAX_BYTES} bytes: send smaller batches")
            )

    def request_end(self, trailers: Headers) -> None:
        """See RequestEvents."""
        if self._is_open and self._task is None:
            self._task = self._server.sockets.spawn(self._take())

    def request_gone(self, detail: str) -> None:
        """See RequestEvents."""
        self._over()
        if self._task is not None:
            self._task.cancel()

    def response_drained(self, count: int) -> None:
        """See RequestEvents: answers are small."""

    def _too_slow(self) -> None:
        self._refuse(Refusal(answers.UNAVAILABLE, f"the request took longer than {_REQUEST_S:g} s"))

    async def _take(self) -> None:
        try:
            found = await self._taken()
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:  # noqa: BLE001 - the boundary: one request fails, not the server
            _LOG.exception("taking %s of the app failed", self._signal)
            self._refuse(Refusal(INTERNAL, f"taking the {self._signal} failed, see the log of this proxy"))
        else:
            self._answer(*found)

    async def _taken(self) -> tuple[int, str]:
        name, value = self._server.own_mark
        if self._headers.get(name) == value:
            text = f"this is the exporter's own proxy: {self._signal} would go in a circle; name the collector's address as the endpoint"
            raise Refusal(answers.FAILED_PRECONDITION, text)
        body = bytes(self._body)
        self._body.clear()
        if self._is_grpc:
            message = unframed(body, self._headers.get(b"grpc-encoding", b""))
        else:
            self._check_kind()
            message = unpacked(body, self._headers.get(b"content-encoding", b""))
        receiver = await self._server.receiver()
        return await receiver.take(message, self._signal, is_json=self._is_json)

    def _check_kind(self) -> None:
        kind = self._headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind not in (b"application/json", b"application/x-protobuf"):
            raise Refusal(UNIMPLEMENTED, "the content type is application/x-protobuf or application/json")

    def _answer(self, rejected: int, why: str) -> None:
        if not self._over():
            return
        if self._is_grpc:
            self._down.respond(200, HEAD, end=False)
            self._down.send(framed(answers.partial_success(rejected, why)))
            self._down.finish(ending(OK))
        else:
            self._respond(answers.http_taken(rejected, why, self._signal, is_json=self._is_json))

    def _refuse(self, refusal: Refusal) -> None:
        if not self._over():
            return
        if self._is_grpc:
            self._down.respond(200, (*HEAD, *ending(refusal.code, refusal.text)), end=True)
        else:
            self._respond(answers.http_refused(refusal, is_json=self._is_json))

    def _respond(self, answer: answers.HttpAnswer) -> None:
        length = (b"content-length", b"%d" % len(answer.body))
        self._down.respond(answer.status, (*answer.headers, length), end=not answer.body)
        if answer.body:
            self._down.send(answer.body)
            self._down.finish(())

    def _over(self) -> bool:
        """The call ends; whether it was open."""
        was_open, self._is_open = self._is_open, False
        if was_open:
            self._timer.cancel()
            self._server.calls -= 1
        return was_open


def _signal_of(head: RawHead) -> Signal:
    """What is exported: the engine hands over nothing else."""
    path = head.target.partition(b"?")[0].decode("latin-1")
    return SERVICES[path[1:].partition("/")[0]] if head.protocol == "grpc" else PATHS[clean(path)]
