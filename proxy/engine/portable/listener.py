"""Accepts connections, completes TLS, tells HTTP/1.1 from HTTP/2 by the preface, and hands over to the protocol's end.

The TLS context is chosen when a connection begins, so a renewed identity serves from the next connection on.
"""

import asyncio
import socket
import ssl
import time
from functools import partial
from pathlib import Path
from typing import cast

from proxy.contract.addresses import join_address, split_address
from proxy.contract.engine import ListenerSpec, PeerRefusal
from proxy.contract.gates import connections_gate
from proxy.engine.portable.carrier import Carrier
from proxy.engine.portable.passing import Passed, Refused, Waiting
from proxy.engine.portable.refusal import of_handshake
from proxy.errors import ListenError
from proxy.wire.frame_filter import PREFACE
from proxy.wire.h2c import Offer
from proxy.wire.http1_server import Http1Server
from proxy.wire.http2_server import Http2Server
from proxy.wire.streams import AcceptCall, CountFrame, Refuse
from proxy.wire.term import Term
from proxy.wire.tls import IdentityMismatchError, peer_identity

ServerEnd = Http1Server | Http2Server
_BACKLOG = 1_024
_ACCEPTS = 64  # connections taken in one loop turn
_ACCEPT_PAUSE_S = 0.05


class Sniffer(asyncio.Protocol):
    """Reads the first bytes only: the HTTP/2 preface or anything else (HTTP/2 by prior knowledge, RFC 9113 §3.3)."""

    def __init__(self, listener: "Listener", context: ssl.SSLContext | None) -> None:
        self._listener = listener
        self._context = context
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes, not for ever."""
        transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._transport = transport
        self._listener.sniffing.add(self)
        self._timer = asyncio.get_running_loop().call_later(
            self._listener.carrier.limits.head_s, transport.abort
        )
        if self._listener.spec.tls == "mesh":
            tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
            if tls.selected_alpn_protocol() is None:
                self._listener.refused(
                    "protocol", "the peer offered neither postern/1 nor h2 (ALPN)", _peer(transport)
                )
                transport.close()  # `connection_lost` or the timer ends it

    def data_received(self, data: bytes) -> None:
        """Decide as soon as the bytes differ from the preface or hold all of it."""
        if self._transport is None or self._transport.is_closing():
            return
        self._seen += data
        head = self._seen[: len(PREFACE)]
        if PREFACE.startswith(head) and len(head) < len(PREFACE):
            return
        transport, self._transport = self._transport, None
        if transport is not None:
            self._done()
            if self._listener.spec.tls == "mesh" and head != PREFACE:
                self._listener.refused(
                    "protocol", "the peer did not speak HTTP/2 over mutual TLS", _peer(transport)
                )
                self._listener.send_away(transport)
                return
            end = self._listener.hand_over(transport, self._seen, http2=head == PREFACE)
            if end is not None and self._context is not self._listener.context:
                end.start_drain()  # the identity was renewed during the handshake

    def connection_lost(self, exc: Exception | None) -> None:
        """It went before it said anything."""
        if self._transport is not None:
            self._transport = None
            self._done()
            self._listener.gone()

    def close(self) -> None:
        """Drain: a connection that said nothing is closed."""
        if self._transport is not None:
            self._transport.close()

    def _done(self) -> None:
        self._listener.sniffing.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class Listener:
    """One bound address. Mutable state: its connections by protocol end, and those still sniffed."""

    def __init__(self, spec: ListenerSpec, carrier: Carrier) -> None:
        self.spec = spec
        self.carrier = carrier
        self.sniffing: set[Sniffer] = set()
        self.ends: set[ServerEnd] = set()
        self._open = 0
        self._gate = connections_gate(spec.name)
        self._passed: dict[ServerEnd, Passed] = {}
        self.empty = asyncio.Event()  # no connection is open
        self.empty.set()
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._draining = False
        self._closed = asyncio.Event()  # no further connection will be accepted
        self._handshakes: asyncio.TaskGroup

    def bind(self) -> str:
        """Bind; returns the address with its real port. Raises ListenError."""
        address = self.spec.address
        try:
            if address.startswith("unix:"):
                self._path = Path(address[5:])
                self._path.unlink(missing_ok=True)
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._socket.bind(str(self._path))
                self._path.chmod(0o600)
            else:
                host, port = split_address(address)
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                self._socket = socket.create_server(
                    (host, port), family=family, backlog=_BACKLOG, reuse_port=False
                )
                address = join_address(host, self._socket.getsockname()[1])
        except OSError as error:
            if self._socket is not None:
                self._socket.close()
            raise ListenError(self.spec.name, address, error.strerror or str(error)) from error
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)
        return address

    async def run(self) -> None:
        """Accept until cancelled or closed; the TaskGroup inside owns handshakes."""
        async with asyncio.TaskGroup() as handshakes:
            self._handshakes = handshakes
            self._watch()
            try:
                await self._closed.wait()
            finally:
                self.stop_accepting()

    def _watch(self) -> None:
        # Not `sock_accept`: while it waits it keeps the socket open, whoever closes it.
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            if self._socket is None:
                return
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of file descriptors: leave the backlog alone for a moment
                self.carrier.observer.refused_frames("accept")
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._socket)
                loop.call_later(_ACCEPT_PAUSE_S, self._watch)
                return
            if self._open >= self.carrier.limits.connections:
                self.carrier.observer.refused_frames("connections")
                connection.close()
                continue
            connection.setblocking(False)
            self._opened()
            task = self._handshakes.create_task(self._begin(connection, address))
            task.add_done_callback(partial(_close_cancelled, connection))

    @property
    def context(self) -> ssl.SSLContext | None:
        """The TLS context for a connection that begins now; None without TLS, or without an identity yet."""
        return self.carrier.contexts.server if self.spec.tls == "mesh" else None

    async def _begin(self, connection: socket.socket, address: object) -> None:
        loop = asyncio.get_running_loop()
        context = self.context
        if self.spec.tls == "mesh" and context is None:
            self.refused("not-ready", "this proxy has no certificate yet", _host(address))
            connection.close()
            self.gone()
            return
        timeout = self.carrier.limits.handshake_s if context is not None else None
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                lambda: Sniffer(self, context), connection, ssl=context, ssl_handshake_timeout=timeout
            )
        except (OSError, ssl.SSLError) as error:
            self.refused(of_handshake(error), f"the TLS handshake failed: {error}", _host(address))
            connection.close()
            self.gone()

    def hand_over(self, transport: asyncio.Transport, seen: bytes, *, http2: bool) -> ServerEnd | None:
        """The protocol is known: give the connection to its end; None if the peer is refused."""
        peer = term = None
        if self.spec.tls == "mesh":
            try:
                met = peer_identity(transport, self.carrier.contexts, server=False)
            except IdentityMismatchError as error:
                self.refused(error.reason, str(error), _peer(transport))
                self.send_away(transport)
                return None
            peer, term = met.spiffe_id, Term.until(met.ends_at, time.time(), self.carrier.limits)
        address = _peer(transport)
        passed: Passed | None = None
        if peer is not None and (gate := self.carrier.gates.get(self._gate)) is not None:
            found = gate.enter(self.carrier.now(), 0.0, peer)
            if isinstance(found, Refused):
                self.refused("too-many", found.detail, address)
                self.send_away(transport)  # before HTTP/2 begins on it: to a client, a dial that failed
                return None
            assert not isinstance(found, Waiting)  # no gate of connections has any wait
            passed = found
        accept = self.carrier.acceptor(self.spec, peer, address)
        refuse = self.carrier.refuser(self.spec, peer, address)
        who = _who(peer, address, self.spec.name)

        def count(kind: str) -> None:
            self.carrier.observer.refused_frames(kind, who)

        limits = self.carrier.limits
        if http2:
            second = Http2Server(accept, limits, count, self._end_closed, own=peer is None, refuse=refuse)
            second.term = term
            if passed is not None:
                self._passed[second] = passed
            end: ServerEnd = self._speak_http2(transport, second, seen)
        else:
            end = self._speak_http1(transport, accept, count, refuse, seen)
        if self._draining:
            self.start_drain()
        return end

    def _speak_http2(self, transport: asyncio.Transport, end: Http2Server, seen: bytes) -> Http2Server:
        self.ends.add(end)
        transport.set_protocol(end)
        end.connection_made(transport)
        end.data_received(seen)
        return end

    def _speak_http1(
        self,
        transport: asyncio.Transport,
        accept: AcceptCall,
        count: CountFrame,
        refuse: Refuse,
        seen: bytes,
    ) -> Http1Server:
        def closed() -> None:
            self._end_closed(end)

        def upgrade(transport: asyncio.Transport, offer: Offer, rest: bytes) -> None:
            self.ends.discard(end)
            ours = (accept, limits, count, self._end_closed)
            second = Http2Server(*ours, own=True, offer=offer, refuse=refuse)
            self._speak_http2(transport, second, rest)

        limits = self.carrier.limits
        rota = self.carrier.rota
        end = Http1Server(accept, limits, count, closed, rota=rota, upgrade=upgrade, refuse=refuse)
        self.ends.add(end)
        end.take_over(transport, seen)
        return end

    def send_away(self, transport: asyncio.Transport) -> None:
        """Close, so that TLS says that it ends (RFC 8446 §6.1)."""
        transport.close()
        asyncio.get_running_loop().call_later(self.carrier.limits.head_s, transport.abort)
        self.gone()

    def refused(self, reason: PeerRefusal, detail: str, address: str) -> None:
        """Report a peer that was refused."""
        self.carrier.observer.refused_peer(self.spec.name, reason, detail, address)

    def _opened(self) -> None:
        self._open += 1
        self.empty.clear()
        self.carrier.observer.connection(self.spec.name, 1)

    def gone(self) -> None:
        """A connection is closed; those that the end of the engine closed were counted then."""
        if self._open == 0:
            return
        self._open -= 1
        if self._open == 0:
            self.empty.set()
        self.carrier.observer.connection(self.spec.name, -1)

    def _end_closed(self, end: ServerEnd) -> None:
        passed = self._passed.pop(end, None)
        if passed is not None:
            passed.leave(None, self.carrier.now())
        if end in self.ends:
            self.ends.discard(end)
            self.gone()

    @property
    def connections(self) -> int:
        """Open connections."""
        return self._open

    def stop_accepting(self) -> None:
        """Close the socket; connections go on."""
        self._draining = True
        bound, self._socket = self._socket, None
        if bound is not None:
            asyncio.get_running_loop().remove_reader(bound)
            bound.close()
        self._closed.set()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def start_drain(self) -> None:
        """Tell every connection to finish what it has and come no more."""
        self._draining = True
        for sniffer in list(self.sniffing):
            sniffer.close()
        for end in list(self.ends):
            end.start_drain()

    def end(self) -> None:
        """The engine stops: say so on every connection, and answer for none any more."""
        self.stop_accepting()
        for sniffer in list(self.sniffing):
            sniffer.close()
        for end in list(self.ends):
            end.end()
        self.ends.clear()
        self._passed.clear()
        while self._open:
            self.gone()

    def identity_changed(self) -> None:
        """Peers admitted under the old identity must reconnect, to show a certificate again; calls under way may finish."""
        if self.spec.tls == "mesh":
            for end in list(self.ends):
                end.start_drain()

    def sweep(self, now: float, wall: float) -> None:
        """Ping silent HTTP/2 connections that have calls, drain idle ones and those whose certificates end, cut off callers that
        stall. `wall`: epoch seconds.
        """
        for end in list(self.ends):
            if isinstance(end, Http2Server):
                end.check_term(wall)
                end.check_alive(now)
                if not end.streams and now - end.active_at > self.carrier.limits.idle_s:
                    end.start_drain()
        for exchange in list(self.carrier.calls.get(self.spec.name, ())):
            exchange.check_progress(now)


def _who(peer: str | None, address: str, listener: str) -> str:
    """Who is at the other end, for people."""
    if peer is not None:
        return f"{peer} at {address}"
    return f"a caller at {address} on {listener}" if address else f"a caller on the socket of {listener}"


def _peer(transport: asyncio.BaseTransport) -> str:
    return _host(transport.get_extra_info("peername"))


def _close_cancelled(connection: socket.socket, task: asyncio.Task[None]) -> None:
    """A task that is cancelled before its first step runs none of its own code."""
    if task.cancelled():
        connection.close()


def _host(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) and address else ""
