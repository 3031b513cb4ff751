"""Upstream connections by address and identity: grown by load, drained on rotation, dialled at most as often as calls wait.

A call that finds a free connection never waits; one that does not becomes a waiter, and dialling runs in the engine's TaskGroup.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping

from msgspec import Struct, field

from proxy.contract.addresses import split_address
from proxy.contract.engine import ClusterTls, Limits, Observer, VerifiedTls, Via, WireProtocol
from proxy.contract.plan import Cause
from proxy.engine.portable.refusal import by_alert, unverified
from proxy.errors import os_reason
from proxy.wire.http1_client import Http1Client
from proxy.wire.http2_client import Http2Client
from proxy.wire.http_tunnel import connect_proxy, hand_over, open_tunnel, over_tls, proxy_at
from proxy.wire.streams import UpstreamConnection
from proxy.wire.term import Term
from proxy.wire.tls import IdentityMismatchError, TlsContexts, check_server
from proxy.wire.turns import Rota

Spawn = Callable[[Coroutine[None, None, None]], object]
MAX_PER_ADDRESS = 1_024  # connections; daprd's bound towards an app
GROW_AT = 64  # calls on each connection before another is dialled beside them
NO_MORE_S = 1.0  # after a dial that failed beside connections that go on, until the next to have more


class Origin(Struct, frozen=True):
    """What a connection is for: keyed by identity *and* address, so that one made for one callee never serves another.

    is_tunnel: through the proxy `via` even in plaintext.
    """

    cluster: str
    address: str
    wire: WireProtocol
    tls: ClusterTls
    expect: frozenset[str]
    connect_s: float = 5.0
    who: str = "the app"  # for people
    via: Via | None = None
    is_tunnel: bool = False


class Waiter:
    """A call waiting for a connection. `cancelled`: it has given up, and hears nothing any more."""

    __slots__ = ("cancelled", "failed", "ready")

    def __init__(
        self, ready: Callable[[UpstreamConnection], None], failed: Callable[[Cause, str], None]
    ) -> None:
        self.ready = ready
        self.failed = failed
        self.cancelled = False


class _Host(Struct):
    """Connections to one origin. Invariant: `dialling` never exceeds the calls waiting, nor all connections the bound.

    waiting: in the order they came; a call that gives up takes itself out. no_more_until: a dial failed while others stood, by the loop's
    clock; until then none is made but for calls that wait.
    """

    origin: Origin
    connections: list[UpstreamConnection] = field(default_factory=list)
    waiting: dict[Waiter, None] = field(default_factory=dict)
    dialling: int = 0
    no_more_until: float = 0.0

    @property
    def share(self) -> int:
        """How many waiting calls one dial is for."""
        return 1 if self.origin.wire == "http1" else GROW_AT

    def next_waiter(self) -> Waiter:
        """The one that came first, taken out."""
        waiter = next(iter(self.waiting))
        del self.waiting[waiter]
        return waiter


class DialError(Exception):
    """A connection could not be made."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


class Pool:
    """Mutable state: hosts by origin, and which host a connection belongs to."""

    def __init__(
        self, limits: Limits, contexts: TlsContexts, observer: Observer, spawn: Spawn, rota: Rota
    ) -> None:
        self._rota = rota
        self._limits = limits
        self._contexts = contexts
        self._observer = observer
        self._spawn = spawn
        self._hosts: dict[Origin, _Host] = {}
        self._owners: dict[int, _Host] = {}

    @property
    def size(self) -> int:
        """Open connections."""
        return sum(len(host.connections) for host in self._hosts.values())

    @property
    def streams(self) -> int:
        """Calls on connections of HTTP/2."""
        ones = (connection for host in self._hosts.values() for connection in host.connections)
        return sum(connection.in_flight for connection in ones if isinstance(connection, Http2Client))

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection."""
        return sum(len(host.waiting) for host in self._hosts.values())

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """A connection with room; None means wait.

        The first that isn't busy: fewer connections fill larger batches, and those that a peak left behind get idle. Else the least busy.
        """
        host = self._hosts.get(origin)
        if host is None:
            return None
        best: UpstreamConnection | None = None
        for connection in host.connections:
            if connection.capacity > 0 and (best is None or connection.in_flight < best.in_flight):
                best = connection
                if best.in_flight < GROW_AT:
                    return best
        if best is not None:
            self._grow(host)
        return best

    def wait(self, origin: Origin, waiter: Waiter) -> Callable[[], None]:
        """Queue a call, and dial unless a dial is already under way for it; returns what dequeues it."""
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = _Host(origin)
        host.waiting[waiter] = None
        self._grow(host)

        def cancel() -> None:
            waiter.cancelled = True
            host.waiting.pop(waiter, None)

        return cancel

    def _grow(self, host: _Host) -> None:
        if not host.waiting and asyncio.get_running_loop().time() < host.no_more_until:
            return
        wanted = -(-max(1, len(host.waiting)) // host.share)
        room = MAX_PER_ADDRESS - len(host.connections) - host.dialling
        for _ in range(min(wanted - host.dialling, room)):
            host.dialling += 1
            self._spawn(self._dial(host))

    async def _dial(self, host: _Host) -> None:
        identity = self._contexts.identity
        try:
            async with asyncio.timeout(host.origin.connect_s):
                connection = await self._connect(host.origin)
        except TimeoutError:
            through = f" through {proxy_at(host.origin.via.address)}" if host.origin.via is not None else ""
            self._failed(host, Cause.CONNECT, f"no connection within {host.origin.connect_s:g} s{through}")
        except DialError as error:
            self._failed(host, error.cause, error.detail)
        except BaseException:
            host.dialling -= 1
            raise
        else:
            if host.origin.tls == "mesh" and self._contexts.identity is not identity:
                self._outdated(host, connection)
            else:
                self._connected(host, connection)

    def _outdated(self, host: _Host, connection: UpstreamConnection) -> None:
        """The identity was renewed meanwhile: its roots may trust whom the new ones do not."""
        connection.retire()
        host.dialling -= 1
        if host.waiting:
            self._grow(host)
        self._forget(host)

    def _connected(self, host: _Host, connection: UpstreamConnection) -> None:
        if connection.capacity <= 0:  # dialling it again at once would go on for ever
            connection.retire()
            self._failed(
                host,
                Cause.CONNECT,
                "it accepts no streams (its limit is 0), or closed the connection at once",
            )
            return
        host.dialling -= 1
        host.connections.append(connection)
        self._owners[id(connection)] = host
        self._serve(host)

    async def _connect(self, origin: Origin) -> UpstreamConnection:
        context = self._context(origin)
        holder: list[Http1Client | Http2Client] = []
        who = f"{origin.cluster} at {origin.address}"

        def count(kind: str) -> None:
            self._observer.refused_frames(kind, who)

        def make() -> asyncio.Protocol:
            client: Http1Client | Http2Client
            if origin.wire == "http1":
                asked = origin.via if origin.tls is None and not origin.is_tunnel else None
                end = origin.who if asked is None else proxy_at(asked.address)
                client = Http1Client(self, self._limits, count, end, asked, rota=self._rota)
            else:
                is_own = origin.tls != "mesh"
                client = Http2Client(self, self._limits, count, "h2", own=is_own, who=origin.who)
            holder.append(client)
            return client

        try:
            transport, connect_s, tls_s = await self._open(origin, make, context)
        except ssl.SSLError as error:
            raise DialError(Cause.TLS_IDENTITY, _tls_failed(origin, error)) from error
        except OSError as error:
            closed = f"{origin.who} closed the connection during the TLS handshake"
            raise DialError(Cause.CONNECT, os_reason(error) or closed) from error
        except (ValueError, OverflowError) as error:  # an invalid port, a name that can't be looked up
            raise DialError(Cause.CONNECT, f"invalid address {origin.address[:80]!r}") from error
        await self._prove(origin, holder[0], transport)
        if not origin.address.startswith("unix:"):
            self._observer.upstream_connected(origin.cluster, connect_s, tls_s)
        return holder[0]

    async def _prove(
        self, origin: Origin, client: Http1Client | Http2Client, transport: asyncio.Transport
    ) -> None:
        """Check whom we reached; an HTTP/2 peer is up once its SETTINGS came."""
        term: Term | None = None
        try:
            if origin.tls == "mesh":
                client.alpn, ends_at = check_server(transport, origin.expect, self._contexts)
                term = Term.until(ends_at, time.time(), self._limits)
            if isinstance(client, Http2Client):
                client.term = term
                await client.ready
        except IdentityMismatchError as error:
            transport.abort()
            raise DialError(Cause.TLS_IDENTITY, str(error)) from error
        except ssl.SSLError as error:
            raise DialError(Cause.TLS_IDENTITY, _tls_failed(origin, error)) from error
        except OSError as error:
            hint = ""
            if origin.tls == "mesh":
                hint = "; it may have refused us: look for 'peer refused' in its log"
            elif origin.wire == "postern" and origin.tls is None:
                hint = "; it may want mutual TLS"
            raise DialError(Cause.CONNECT, f"{error}{hint}") from error
        except asyncio.CancelledError:
            transport.abort()
            raise

    def _context(self, origin: Origin) -> ssl.SSLContext | None:
        if origin.tls is None:
            return None
        if origin.tls == "app":
            return self._contexts.app(origin.wire)
        if isinstance(origin.tls, VerifiedTls):
            try:
                return self._contexts.verified(origin.tls)
            except ssl.SSLError as error:
                raise DialError(Cause.TLS_IDENTITY, f"the certificates can't be used: {error}") from error
        context = self._contexts.client
        if context is None:
            raise DialError(Cause.NOT_READY, "this proxy has no certificate yet")
        return context

    async def _open_via(
        self, via: Via, origin: Origin, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None
    ) -> tuple[asyncio.Transport, float, float]:
        """Through an HTTP proxy: a tunnel to the origin, or for most in plaintext the proxy itself, which is asked for it."""
        begun_at = time.perf_counter()
        try:
            tls = self._contexts.verified(via.tls) if via.tls is not None else None
            name = via.tls.name if via.tls is not None else None
            if context is None and not origin.is_tunnel:
                transport = await connect_proxy(via, make, tls, name)
                return transport, time.perf_counter() - begun_at, 0.0
            way = await open_tunnel(via, origin.address, tls, name)
        except ssl.SSLError as error:
            assert via.tls is not None
            why = unverified(error, via.tls.name, proxy_at(via.address))
            raise DialError(Cause.CONNECT, f"TLS with {proxy_at(via.address)} failed: {why}") from error
        opened_at = time.perf_counter()
        if context is None:
            hand_over(way, make())
            return way, opened_at - begun_at, 0.0
        assert isinstance(origin.tls, VerifiedTls)  # as all that a proxy stands before
        transport = await over_tls(way, make(), context, origin.tls.name)
        return transport, opened_at - begun_at, time.perf_counter() - opened_at

    async def _open(
        self, origin: Origin, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None
    ) -> tuple[asyncio.Transport, float, float]:
        """The connection, and the seconds that TCP and TLS took."""
        if origin.via is not None:
            return await self._open_via(origin.via, origin, make, context)
        loop = asyncio.get_running_loop()
        begun_at = time.perf_counter()  # finer than the loop's clock
        if origin.address.startswith("unix:"):
            transport, _ = await loop.create_unix_connection(make, origin.address[5:])
            return transport, 0.0, 0.0
        host, port = split_address(origin.address)
        if context is None:
            transport, _ = await loop.create_connection(make, host, port)
            return transport, time.perf_counter() - begun_at, 0.0
        sock = await _tcp(loop, host, port)
        connected_at = time.perf_counter()
        name = origin.tls.name if isinstance(origin.tls, VerifiedTls) else ""
        transport, _ = await loop.create_connection(make, sock=sock, ssl=context, server_hostname=name)
        return transport, connected_at - begun_at, time.perf_counter() - connected_at

    def _failed(self, host: _Host, cause: Cause, detail: str) -> None:
        host.dialling -= 1
        if host.connections:  # which go on: the peer may let us have no more of them
            host.no_more_until = asyncio.get_running_loop().time() + NO_MORE_S
        if cause is not Cause.NOT_READY:  # then it was not tried, and the call waits for our certificate
            self._observer.upstream_failed(host.origin.cluster, host.origin.address, detail)
        # As many fail as the dial was for; the others have dials of their own under way, if there are any.
        count = min(host.share, len(host.waiting)) if host.dialling else len(host.waiting)
        for waiter in [host.next_waiter() for _ in range(count)]:
            if not waiter.cancelled:
                waiter.failed(cause, detail)
        self._forget(host)

    def _forget(self, host: _Host) -> None:
        if not (host.connections or host.dialling or host.waiting):
            self._hosts.pop(host.origin, None)

    def _serve(self, host: _Host) -> None:
        while host.waiting:
            connection = self.take(host.origin)
            if connection is None:
                self._grow(host)
                return
            host.next_waiter().ready(connection)

    # --- ConnectionOwner -----------------------------------------------------------------------------------------------

    def capacity_changed(self, connection: UpstreamConnection) -> None:
        """Serve who waits."""
        host = self._owners.get(id(connection))
        if host is not None and host.waiting and connection.capacity > 0:
            self._serve(host)

    def connection_closed(self, connection: UpstreamConnection, detail: str) -> None:
        """Forget it; dial again for who waits."""
        host = self._owners.pop(id(connection), None)
        if host is not None:
            host.connections.remove(connection)
            if host.waiting:
                self._grow(host)
            self._forget(host)

    # --- lifetime ------------------------------------------------------------------------------------------------------

    def retire(self, cluster: str, addresses: frozenset[str]) -> None:
        """Addresses that are gone from a cluster: no new calls on their connections."""
        self._retire(lambda host: host.origin.cluster == cluster and host.origin.address in addresses)

    def retire_mesh(self) -> None:
        """The identity was renewed: connections under the old one drain."""
        self._retire(lambda host: host.origin.tls == "mesh")

    def _retire(self, matches: Callable[[_Host], bool]) -> None:
        for host in list(self._hosts.values()):
            if matches(host):
                for connection in list(host.connections):
                    connection.retire()

    def sweep(self, now: float, wall: float) -> Mapping[Origin, bool]:
        """Look after idle and silent connections, and those whose certificates end. `wall`: epoch seconds.

        Returns the origins of connections on which calls wait and a PING is not answered; True: which were given up for that.
        """
        silent: dict[Origin, bool] = {}
        for host in list(self._hosts.values()):
            for connection in list(host.connections):
                if isinstance(connection, Http2Client):
                    connection.check_term(wall)
                    connection.check_alive(now)
                    if connection.is_doubtful(now):
                        silent[host.origin] = connection.is_unanswered
                    if not connection.streams and now - connection.active_at > self._limits.idle_s:
                        connection.retire()
        return silent

    def close(self) -> None:
        """Close everything now."""
        for host in list(self._hosts.values()):
            for connection in list(host.connections):
                connection.close()


async def _tcp(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A socket connected to the first address of a host that takes it. Raises OSError."""
    failed: OSError = OSError(f"no address of {host}")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed


def _tls_failed(origin: Origin, error: ssl.SSLError) -> str:
    if isinstance(origin.tls, VerifiedTls):
        return unverified(error, origin.tls.name, origin.who)
    told = by_alert(error, origin.who, is_peer=origin.tls == "mesh")
    if told is not None:
        return told
    wanted = f"expected {' or '.join(sorted(origin.expect))}, " if origin.expect else ""
    why = getattr(error, "verify_message", "") or error.reason or str(error)
    if error.reason == "WRONG_VERSION_NUMBER":
        why = "the other end does not speak TLS"
    return f"{wanted}TLS failed: {why}"
