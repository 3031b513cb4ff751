"""Small HTTP/1.1 servers for the sidecar's own endpoints: the private sockets, the metrics port, the public API.

Bodies are whole and bounded but for answers that go on (`LocalStream`), one handler answers every request, each step has a deadline. They
are built on the engines' HTTP/1.1 code, so the strict scan guards these sockets too. Knows no routes.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Coroutine

from msgspec import Struct

from proxy.contract.addresses import split_address
from proxy.contract.engine import Limits
from proxy.contract.head import Headers
from proxy.contract.plan import Cause
from proxy.errors import ListenError
from proxy.wire.http1_server import Http1Server
from proxy.wire.http_client import LocalResponse, LocalStream
from proxy.wire.streams import AcceptCall, Downstream, RawHead

_LOG = logging.getLogger("postern.local-http")
# Of one LocalHttp; the engine opens one for each local call in flight. As many may wait to be accepted: a unix socket refuses at once what
# does not fit there.
_CONNECTIONS = 1_024
_BODY_BYTES = 1_048_576
_REQUEST_S = 30.0  # from a request's head to its end
_HANDLER_S = 30.0
_UNREAD_BYTES = (
    65_536  # of an answer that goes on, beyond what its connection holds: then its reader is waited for
)
_UNREAD_S = 60.0  # for it to read on
_HANDSHAKE_S = 10.0


class LocalRequest(Struct, frozen=True):
    """A whole request. `target` as it came; header names lower-case, without Host, which is `authority`."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""
    authority: str = ""


Handler = Callable[[LocalRequest], Awaitable[LocalResponse | LocalStream]]


class LocalHttp:
    """A server for one handler on any number of addresses. tls: on those that are not of the file system.

    Mutable state: its sockets, connections, and the handlers that began before `run`, which owns their tasks.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        body_bytes: int = _BODY_BYTES,
        handler_s: float = _HANDLER_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.handler = handler
        self.body_bytes = body_bytes
        self.handler_s = handler_s
        self._limits = limits or Limits()
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self._paths: list[str] = []
        self._ends: set[Http1Server] = set()
        self._group: asyncio.TaskGroup | None = None
        self._early: list[Coroutine[object, object, None]] = []

    async def run(self) -> None:
        """Answer until cancelled, then close everything."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                early, self._early = self._early, []
                for work in early:
                    group.create_task(work)
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self.close()

    async def serve(self, address: str | socket.socket, *, name: str = "local") -> str:
        """Listen on `unix:/path` (made 0600), `host:port` or a bound socket; the address that it became.

        Raises ListenError.
        """
        try:
            bound = _bind(address) if isinstance(address, str) else address
            bound.setblocking(False)
            loop = asyncio.get_running_loop()
            if bound.family == socket.AF_UNIX:
                self._paths.append(bound.getsockname())
                self._servers.append(
                    await loop.create_unix_server(self._end, sock=bound, backlog=_CONNECTIONS)
                )
            else:
                handshake_s = None if self._tls is None else _HANDSHAKE_S
                self._servers.append(
                    await loop.create_server(
                        self._end,
                        sock=bound,
                        backlog=_CONNECTIONS,
                        ssl=self._tls,
                        ssl_handshake_timeout=handshake_s,
                    )
                )
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise ListenError(name, str(address), reason) from error
        return _address(bound)

    def close(self) -> None:
        """Close sockets and connections now; unix sockets leave the file system."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        for end in list(self._ends):
            end.close()
        for work in self._early:
            work.close()
        self._servers, self._paths, self._early = [], [], []

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None] | None:
        """Run a handler's work in the group of `run`, or once there is one."""
        if self._group is None:
            self._early.append(work)
            return None
        return self._group.create_task(work)

    def _end(self) -> asyncio.Protocol:
        if len(self._ends) >= _CONNECTIONS:
            return _Full()
        return _End(self._accept, self._limits, self._ends)

    def _accept(self, down: Downstream, head: RawHead) -> "_LocalCall":
        return _LocalCall(self, down, head)


class _End(Http1Server):
    """A connection, among `ends` while it is open: a TLS handshake that fails never opens one."""

    def __init__(self, accept: AcceptCall, limits: Limits, ends: set[Http1Server]) -> None:
        super().__init__(accept, limits, _count, lambda: ends.discard(self))
        self._ends = ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Http1Server."""
        self._ends.add(self)
        super().connection_made(transport)


class _Full(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()


def _count(kind: str) -> None:
    _LOG.debug("refused a message: %s", kind)


class _LocalCall:
    """RequestEvents of one call: gathers the body, then lets the handler answer."""

    def __init__(self, host: LocalHttp, down: Downstream, head: RawHead) -> None:
        self._host = host
        self._down = down
        self._head = head
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._open = True
        self._unread = 0
        self._drained = asyncio.Event()
        self._timer = asyncio.get_running_loop().call_later(_REQUEST_S, self._too_slow)
        if head.protocol == "websocket":  # nobody here speaks it: the plain request is answered
            self.request_end(())

    def request_data(self, data: bytes) -> None:
        """See RequestEvents."""
        self._down.ack(len(data))
        if not self._open:
            return
        self._body += data
        if len(self._body) > self._host.body_bytes:
            self._answer(
                _failure(413, "ERR_TOO_LARGE", f"the body is larger than {self._host.body_bytes} bytes")
            )

    def request_end(self, trailers: Headers) -> None:
        """See RequestEvents."""
        self._timer.cancel()
        if self._open and self._task is None:
            self._task = self._host.spawn(self._handle())

    def request_gone(self, detail: str) -> None:
        """See RequestEvents."""
        self._open = False
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def response_drained(self, count: int) -> None:
        """See RequestEvents. Whole answers are in memory anyway."""
        self._unread -= count
        self._drained.set()

    def _too_slow(self) -> None:
        self._answer(_failure(408, "ERR_TIMEOUT", f"the request took longer than {_REQUEST_S:g} s"))

    async def _handle(self) -> None:
        head = self._head
        request = LocalRequest(
            head.method.decode("latin-1"),
            head.target.decode("latin-1"),
            head.headers,
            bytes(self._body),
            head.authority.decode("latin-1"),
        )
        try:
            async with asyncio.timeout(self._host.handler_s):
                answer = await self._host.handler(request)
        except TimeoutError:
            answer = _failure(504, "ERR_TIMEOUT", f"no answer within {self._host.handler_s:g} s")
        except Exception:  # noqa: BLE001 - the boundary: one request fails, not the server
            _LOG.exception("answering %s %s failed", request.method, request.target.partition("?")[0])
            answer = _failure(500, "ERR_INTERNAL", "answering failed, see the log")
        if isinstance(answer, LocalStream):
            await self._go_on(answer)
        else:
            self._answer(answer)

    async def _go_on(self, answer: LocalStream) -> None:
        """Hand on the pieces as the reader takes them; one that has stopped reading is cut off."""
        async with contextlib.aclosing(answer.pieces) as pieces:
            self._down.respond(answer.status, answer.headers, end=False)
            try:
                async for piece in pieces:
                    self._unread += len(piece)
                    self._down.send(piece)
                    async with asyncio.timeout(_UNREAD_S):
                        await self._read_on()
            except TimeoutError:
                self._down.abort(Cause.CALLER_LEFT)
            except Exception:  # noqa: BLE001 - as in `_handle`
                _LOG.exception("an answer broke off")
                self._down.abort(Cause.RESET_LATE)
            else:
                self._down.finish(())
            self._open = False

    async def _read_on(self) -> None:
        while self._unread > _UNREAD_BYTES:
            self._drained.clear()
            await self._drained.wait()

    def _answer(self, answer: LocalResponse) -> None:
        if not self._open:
            return
        self._open = False
        self._timer.cancel()
        headers = [field for field in answer.headers if field[0].lower() != b"content-length"]
        if answer.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(answer.body)))
        bodiless = not answer.body or self._head.method == b"HEAD"
        self._down.respond(answer.status, tuple(headers), end=bodiless)
        if not bodiless:
            self._down.send(answer.body)
            self._down.finish(())


def _failure(status: int, code: str, text: str) -> LocalResponse:
    body = b'{"errorCode":"%b","message":"%b"}' % (code.encode(), text.encode())
    return LocalResponse(status, ((b"content-type", b"application/json"),), body)


# --- addresses


def _bind(address: str) -> socket.socket:
    if address.startswith("unix:"):
        return bind_unix(address[5:])
    host, port = split_address(address)
    name = host.encode() if host.isascii() else host  # a str loads the tables of international names
    family, kind, _, _, where = socket.getaddrinfo(
        name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound


def bind_unix(path: str) -> socket.socket:
    """Bind a socket file of mode 0600 in place of what a crash left. Raises OSError."""
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)  # before listening: nobody can connect in between
    except OSError:
        bound.close()
        raise
    return bound


def _remove_stale(path: str) -> None:
    """A socket file without a listener was left by a crash."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _address(bound: socket.socket) -> str:
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if bound.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


# --- calling
