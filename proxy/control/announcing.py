"""Makes this sidecar known to others: an entry in the host's registry for as long as it runs, an announcement while it takes calls."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from nameresolution.directory import Directory
from nameresolution.errors import NameResolutionError
from nameresolution.host_registry import Entry, HostRegistry, Registration
from nameresolution.resolver import Instance
from proxy.contract.addresses import join_address
from proxy.control.app_watch import AppWatch
from proxy.control.listening import Listening
from proxy.settings.values import Settings
from telemetry.logs import get_logger


class Announcing:
    """Mutable state: the registry entry, whether callers may come, and whether we leave."""

    def __init__(
        self,
        settings: Settings,
        registry: HostRegistry,
        directory: Directory,
        listening: Listening,
        app: AppWatch,
        *,
        host_ip: str,
        admin_socket: Path,
        has_expired: Callable[[], bool],
    ) -> None:
        """`has_expired`: whether our certificate has, so that peers refuse it."""
        self._settings = settings
        self._registry = registry
        self._directory = directory
        self._listening = listening
        self._app = app
        self._log = get_logger("postern")
        self._host_ip = host_ip
        self._admin_socket = admin_socket
        self._has_expired = has_expired
        self._registration: Registration | None = None
        self._has_moved = False  # a port is another than announced
        self._is_due = False  # the entry is older than we are, as it could not be written
        self._turned = asyncio.Event()
        self.mesh = ""
        self.started_at = time.time()
        self.serving = self.leaving = False

    async def register(self) -> None:
        """Write the entry: we are here, and take no calls yet. Raises: RegistrationError."""
        self._registration = await asyncio.to_thread(self._registry.register, self._entry())

    def identify(self, mesh: str) -> None:
        """Our certificate is of the mesh with this hash; "" without mutual TLS."""
        self.mesh = mesh
        self._directory.identify(self._settings.instance, mesh)
        self._turned.set()

    async def keep(self) -> None:
        """Announce us while our app takes calls and we can prove who we are, until we leave; the entry stays all the time."""
        await self._directory.wait_running()
        self.renew()
        while not self.leaving:
            self._turned.clear()
            if self._takes_calls == self.serving and not (self.serving and self._has_moved):
                await self._turned.wait()
                continue
            self.serving, self._has_moved = self._takes_calls, False
            self.renew()
            if self.serving:
                instance = self._instance()
                await self._directory.announce(instance)
                where = join_address(instance.host, instance.port)
                self._log.info("serving", app_id=instance.app_id, peer=where)
            else:
                await self._directory.withdraw()
                until = "the certificate is renewed" if self._has_expired() else "the app takes calls again"
                self._log.warning(f"not announced until {until}", app=self._app.state)

    def moved(self) -> None:
        """A port that we tell of is another one."""
        self._has_moved = True
        self.renew()
        self._turned.set()

    def app_changed(self) -> None:
        """The app opened, closed, or became healthy or unhealthy."""
        self.renew()
        self._turned.set()

    def tick(self) -> None:
        """Called every second or so: what could not be written is written again, and a certificate may have ended."""
        if self._is_due:
            self.renew()
        if self.serving and self._has_expired():
            self._turned.set()

    def renew(self) -> None:
        """Write what we are now into the host's registry; a full disk must not end a sidecar that serves."""
        if self._registration is None or self.leaving:
            return
        try:
            self._registration.update(self._entry())
        except NameResolutionError as error:
            if not self._is_due:
                self._log.warning("the registry entry can't be renewed, trying again", reason=str(error))
            self._is_due = True
        else:
            self._is_due = False

    async def withdraw(self) -> None:
        """Shutdown: no new caller should come."""
        self.leaving = True
        if self._registration is not None:
            try:
                self._registration.withdraw()
            except NameResolutionError as error:
                self._log.warning("the registry entry can't be withdrawn", reason=str(error))
        await self._directory.withdraw()

    def close(self) -> None:
        """Take the entry away."""
        if self._registration is not None:
            self._registration.close()

    @property
    def _takes_calls(self) -> bool:
        return self._app.takes_calls and not self._has_expired()

    def _instance(self) -> Instance:
        settings, ports = self._settings, self._listening.ports
        port = ports["peer"]
        assert port is not None
        return Instance(
            app_id=settings.app_id,
            namespace=settings.namespace,
            host=self._host_ip,
            port=port,
            instance=settings.instance,
            mesh=self.mesh,
            app_port=settings.app_port or 0,
            http_host=_reached_at(settings.listen_addresses, self._host_ip),
            http_port=ports.get("http") or 0,
            grpc_port=ports.get("grpc") or 0,
            metrics_port=ports.get("metrics") or 0,
        )

    def _entry(self) -> Entry:
        settings, ports = self._settings, self._listening.ports
        return Entry(
            app_id=settings.app_id,
            namespace=settings.namespace,
            instance=settings.instance,
            pid=os.getpid(),
            host=self._host_ip,
            peer_port=ports.get("peer") or 0,
            http_port=ports.get("http") or 0,
            grpc_port=ports.get("grpc") or 0,
            metrics_port=ports.get("metrics") or 0,
            app_port=settings.app_port or 0,
            app_state=self._app.state,
            expired=self._has_expired(),
            admin_socket=str(self._admin_socket),
            mesh=self.mesh,
            grpc_services=self._app.services,
            services_learnt=not settings.grpc_services,
            command=settings.run.command,
            started_at=self.started_at,
            run_template=settings.run.run_template,
            cli_pid=settings.run.cli_pid or 0,
            profile=settings.profile,
            app_log=settings.run.app_log,
            sidecar_log=settings.run.sidecar_log or str(settings.log_file or ""),
            serving=self.serving,
        )


def _reached_at(listening: tuple[str, ...], host_ip: str) -> str:
    """Where the APIs can be asked: at the address that we announce, where they listen there."""
    is_everywhere = any(host in ("", "0.0.0.0", "::") for host in listening)  # noqa: S104 - compared, not bound
    return host_ip if is_everywhere or host_ip in listening or not listening else listening[0]
