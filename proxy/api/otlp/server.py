"""The private socket where the engine hands over what the app exports, over HTTP and gRPC. What reads it is loaded with the first call.

grpcio is not needed: the calls are unary, and a message out of a frame is all there is to them.
"""

import asyncio
import logging
from collections.abc import Coroutine
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.api.dapr.codes import INTERNAL, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from proxy.api.daprd.framing import HEAD, ending, framed
from proxy.api.otlp import answers
from proxy.api.otlp.answers import Refusal
from proxy.api.otlp.unpacking import MAX_BYTES, unframed, unpacked
from proxy.api.server import bind_unix
from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.errors import ListenError, os_reason
from proxy.wire.streams import Downstream, RawHead
from proxy.wire.turns import Rota
from telemetry.logs import Logger
from telemetry.series import Counter
from telemetry.tracing import Tracer

if TYPE_CHECKING:
    from proxy.api.otlp.receiver import Receiver
    from proxy.wire.http2_server import Http2Server

CALLS: Final = 16  # at once; each may hold MAX_BYTES, packed and unpacked
_LOG: Final = logging.getLogger("postern.otlp")
_BACKLOG: Final = 128
_REQUEST_S: Final = 30.0  # from a request's head to its end


class OtlpServer:
    """Takes requests on `path`. own_mark: header and value that our own exporters send, so that what they send here is noticed.

    Mutable state: open connections, the calls in hand, the receiver once there is one, and the group that owns the tasks.
    """

    def __init__(
        self,
        path: Path,
        tracer: Tracer,
        log: Logger,
        counter: Counter,
        *,
        own_mark: tuple[bytes, bytes],
    ) -> None:
        self.path = path
        self.own_mark = own_mark
        self.calls = 0
        self._tracer = tracer
        self._log = log
        self._counter = counter
        self._receiver: Receiver | None = None
        self._ends: set[Http2Server] = set()
        self._group: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None
        self._rota = Rota()

    async def listen(self) -> str:
        """The address. Raises ListenError."""
        try:
            bound = bind_unix(str(self.path))
            bound.setblocking(False)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(self._end, sock=bound, backlog=_BACKLOG)
        except OSError as error:
            raise ListenError("otlp", f"unix:{self.path}", os_reason(error)) from error
        return f"unix:{self.path}"

    async def run(self) -> None:
        """Answer until cancelled, then close everything."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self._close()

    async def receiver(self) -> "Receiver":
        """What takes requests; loads protobuf."""
        if self._receiver is None:
            module = await asyncio.to_thread(import_module, "proxy.api.otlp.receiver")
            self._receiver = self._receiver or module.Receiver(self._tracer, self._log, self._counter)
        return self._receiver

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None] | None:
        """Run a call's work in the group of `run`."""
        if self._group is None:
            work.close()
            return None
        return self._group.create_task(work)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)
        for end in list(self._ends):
            end.end()

    def _end(self) -> "Http2Server":
        from proxy.wire.http2_server import Http2Server  # noqa: PLC0415 - see above

        def accept(down: Downstream, head: RawHead) -> _Call:
            return _Call(self, down, head)

        end = Http2Server(accept, Limits(), _refused, self._ends.discard, own=True, rota=self._rota)
        self._ends.add(end)
        return end


def _refused(kind: str) -> None:
    _LOG.debug("refused a message: %s", kind)


class _Call:
    """RequestEvents of one call: gathers the body, then has it taken. Mutable state: the body, the task, and whether it is open."""

    def __init__(self, server: OtlpServer, down: Downstream, head: RawHead) -> None:
        self._server = server
        self._down = down
        self._is_grpc = head.protocol == "grpc"
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
            self._task = self._server.spawn(self._take())

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
            _LOG.exception("taking spans of the app failed")
            self._refuse(Refusal(INTERNAL, "taking the spans failed, see the log of this proxy"))
        else:
            self._answer(*found)

    async def _taken(self) -> tuple[int, str]:
        name, value = self._server.own_mark
        if self._headers.get(name) == value:
            text = "this is the exporter's own proxy: spans would go in a circle; name the collector's address as the endpoint"
            raise Refusal(answers.FAILED_PRECONDITION, text)
        body = bytes(self._body)
        self._body.clear()
        if self._is_grpc:
            message = unframed(body, self._headers.get(b"grpc-encoding", b""))
        else:
            self._check_kind()
            message = unpacked(body, self._headers.get(b"content-encoding", b""))
        receiver = await self._server.receiver()
        return await receiver.take(message, is_json=self._is_json)

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
            self._respond(answers.http_taken(rejected, why, is_json=self._is_json))

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
