"""Where a sidecar listens: the app's two API ports, the peers' port, ports of single callees, metrics and the public API."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from proxy.api.daprd.server import Translators
from proxy.api.otlp.server import OtlpServer
from proxy.api.server import Handler, LocalHttp, LocalRequest
from proxy.contract.addresses import join_address, split_address
from proxy.contract.engine import Engine, ListenerSpec
from proxy.contract.head import FROM_DAPRD
from proxy.contract.plan import Cause
from proxy.control.app_port import holder, listeners
from proxy.control.first_views import browsers_of, own_port_listener
from proxy.control.plane import Control
from proxy.deciding.browsers import refused_page
from proxy.deciding.daprd import TO_DAPRD
from proxy.deciding.outbound import INVOKER
from proxy.errors import ANSWERS, HEADER, ListenError
from proxy.settings.values import PortWish, Settings, is_loopback
from proxy.wire.http_client import LocalResponse, LocalStream
from telemetry.hosts import own_names
from telemetry.logs import get_logger

# As daprd waits for a port of its own that is taken.
_PATIENCE_S = 10.0
_PAUSES_S = (0.1, 0.2, 0.4, 0.5)  # the last one on and on


class Listening:
    """Binds once; then `ports` has each port by its name (None: a socket of the file system, or not asked for).

    `upstream_ports`: those of single callees, by app; `local`: the listeners that the app calls; `has_metrics`: whether their port is to
    be open, if a flag gives one: that one may change later.
    """

    def __init__(self, settings: Settings, engine: Engine, control: Control, *, has_metrics: bool) -> None:
        self.has_metrics = has_metrics
        self._metrics: LocalHttp | None = None
        self._settings = settings
        self._engine = engine
        self._control = control
        self._authorize = control.authorizers.authorize
        self.ports: dict[str, int | None] = {}
        self.upstream_ports: dict[str, int] = {}
        self.local: list[str] = []
        self._log = get_logger("postern")
        self._taken: set[int] = set()

    def names_by_port(self) -> dict[int, str]:
        """The names of the listeners that the app calls, by their ports."""
        found = {port: name for name in ("http", "grpc") if (port := self.ports.get(name))}
        own = {port: own_port_listener(app) for app, port in self.upstream_ports.items()}
        return {**found, **own}

    def all_ports(self) -> frozenset[int]:
        """Every port that is listened on."""
        return frozenset((*filter(None, self.ports.values()), *self.upstream_ports.values()))

    async def bind(self, metrics: LocalHttp, public: LocalHttp) -> None:
        """Listen everywhere. Raises ListenError."""
        settings = self._settings
        await self._bind_api()
        self.ports["peer"] = await self._listen(
            ListenerSpec(
                name="peer",
                address=settings.peer_listen_address,
                decide=self._control.decide_inbound,
                authorize=self._authorize,
                tls="mesh" if settings.mtls else None,
            ),
            settings.peer_port,
        )
        for own in settings.upstreams:
            spec = self._for_app(own_port_listener(own.app), "127.0.0.1")
            self.upstream_ports[own.app] = await self._listen_for_app(spec, PortWish(own.port))
        self._metrics = metrics
        await self.serve_metrics(self.has_metrics)
        asked, host = settings.public_port, settings.public_listen_address
        self.ports["public"] = (
            None if asked is None else await self._listen_local(public, "public", asked, host)
        )

    async def serve_metrics(self, is_wanted: bool) -> None:
        """Have their port open or closed; a flag that gives none wins. Raises ListenError."""
        self.has_metrics = is_wanted
        server, asked, host = (
            self._metrics,
            self._settings.metrics_port,
            self._settings.metrics_listen_address,
        )
        if server is None or asked is None or not is_wanted:
            self.ports["metrics"] = None
            if server is not None:
                server.close()
        elif self.ports.get("metrics") is None:
            self.ports["metrics"] = await self._listen_local(server, "metrics", asked, host)

    async def open_invoker(self, address: str) -> None:
        """Listen where Dapr's gRPC API calls apps. It ends with the engine: who is shut down may still have calls to make."""
        await self._engine.listen(
            ListenerSpec(
                name=INVOKER,
                address=address,
                decide=self._control.decide_outbound,
                authorize=self._authorize,
            )
        )

    async def open_callback(self, address: str) -> None:
        """Listen where OnInvoke of the app is called."""
        await self._engine.listen(
            ListenerSpec(name="callback", address=address, decide=self._control.decide_callback)
        )

    async def open_translators(self, translators: Translators) -> None:
        """Listen where calls of daprds, and to them, go on. Raises ListenError."""
        control = self._control
        await translators.listen()
        for name, way, decide in (
            (FROM_DAPRD, translators.inbound_way, control.decide_translated),
            (TO_DAPRD, translators.outbound_way, control.decide_envelope),
        ):
            spec = ListenerSpec(name=name, address=f"unix:{way}", decide=decide, authorize=self._authorize)
            await self._engine.listen(spec)
        control.translators_listen(f"unix:{translators.inbound}", f"unix:{translators.outbound}")

    async def open_otlp(self, server: OtlpServer) -> None:
        """Have what the app exports taken. Raises ListenError."""
        self._control.otlp_listens(await server.listen())

    async def _bind_api(self) -> None:
        settings = self._settings
        if settings.unix_domain_socket is None:
            for name, wish in (("http", settings.http_port), ("grpc", settings.grpc_port)):
                self.ports[name] = await self._listen_api(name, wish)
            return
        for name in ("http", "grpc"):
            path = settings.unix_domain_socket / f"dapr-{settings.app_id}-{name}.socket"
            spec = self._for_app(name, f"unix:{path}")
            await self._engine.listen(spec)
            self.local.append(name)
            self.ports[name] = None

    async def _listen_api(self, name: str, wish: PortWish) -> int:
        """Listen on each API address with one port; an address that this host lacks is tolerated while another binds.

        A given port that is taken on one address is not: calls to `localhost` would reach a stranger, which daprd allows.
        """
        bound: int | None = None
        failure: ListenError | None = None
        for number, host in enumerate(self._settings.listen_addresses):
            spec = self._for_app(name if number == 0 else f"{name}@{host}", host)
            try:
                bound = await self._listen_for_app(spec, wish if bound is None else PortWish(bound))
            except ListenError as error:
                if error.is_taken and wish.number and not wish.fallback:
                    raise
                failure = error
        if bound is None and failure is not None:
            raise failure
        assert bound is not None
        return bound

    def _for_app(self, name: str, address: str) -> ListenerSpec:
        control = self._control
        return ListenerSpec(
            name=name,
            address=address,
            decide=control.decide_outbound,
            authorize=self._authorize,
            for_pages=control.for_pages,
        )

    async def _listen_for_app(self, spec: ListenerSpec, wish: PortWish) -> int:
        port = await self._listen(spec, wish)
        self.local.append(spec.name)
        return port

    async def _listen(self, spec: ListenerSpec, wish: PortWish) -> int:
        return await self._bind(lambda port: self._engine.listen(_at(spec, port)), wish)

    async def _listen_local(self, server: LocalHttp, name: str, wish: PortWish, host: str) -> int:
        return await self._bind(lambda port: server.serve(join_address(host, port), name=name), wish)

    async def _bind(self, listen: Callable[[int], Awaitable[str]], wish: PortWish) -> int:
        """The port that `listen` bound: the one wished for, or any if that is taken and another will do.

        In the daprd profile one that is taken is waited for: whoever restarts a daprd counts on that.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (_PATIENCE_S if self._settings.profile == "daprd" else 0.0)
        pauses = iter(_PAUSES_S)
        while True:
            try:
                return split_address(await listen(wish.number))[1]
            except ListenError as error:
                if wish.fallback:
                    return split_address(await listen(0))[1]
                if not error.is_taken or loop.time() >= until:
                    raise
                await self._tell_taken(error, wish.number)
            await asyncio.sleep(next(pauses, _PAUSES_S[-1]))

    async def _tell_taken(self, error: ListenError, port: int) -> None:
        """Once for a port."""
        if port in self._taken:
            return
        self._taken.add(port)
        host, _ = split_address(error.address)
        found = await asyncio.to_thread(_held_by, host, port)
        self._log.warning(
            "a port is taken: waiting for it",
            port=port,
            listener=error.name,
            held_by=found,
            for_s=_PATIENCE_S,
        )


def _at(spec: ListenerSpec, port: int) -> ListenerSpec:
    return replace(spec, address=join_address(spec.address, port))


def _held_by(host: str, port: int) -> str:
    """Who listens there, as far as one can see. Blocks on /proc."""
    found = listeners(host, port) or listeners("localhost", port)  # of the wildcard address, too
    return str(holder(found[0], None)) if found else ""


def guarded(
    handler: Handler, settings: Settings, hostname: str, host: str, *, scraped: bool = False
) -> Handler:
    """The same for the app and other machines' programs, not for pages in a browser. host: where it listens."""
    browsers = browsers_of(settings, hostname)
    names = None if is_loopback(host) else own_names(hostname, beyond=True)

    async def answer(request: LocalRequest) -> LocalResponse | LocalStream:
        why = refused_page(browsers, request.authority, request.headers, names=names, scraped=scraped)
        if why is None:
            return await handler(request)
        body = json.dumps({"errorCode": ANSWERS[Cause.FORBIDDEN_ORIGIN].code, "message": why}).encode()
        mark = (HEADER, Cause.FORBIDDEN_ORIGIN.value.encode())
        return LocalResponse(403, ((b"content-type", b"application/json"), mark), body)

    return answer
