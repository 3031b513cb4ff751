"""The host registry as a source of endpoints: the sidecars of this user on this machine, reached over loopback."""

from __future__ import annotations

import asyncio
import contextlib

from nameresolution.host_registry import POLL_S, Entry, HostRegistry
from nameresolution.resolver import (
    MESH_ATTRIBUTE,
    NAMESPACE_ATTRIBUTE,
    AppName,
    Endpoint,
    Found,
    Instance,
    Push,
    SourceFailure,
)

REGISTRY_SOURCE = "host registry"
_NO_ENTRY = SourceFailure(reason="no entry", missing=True)


def endpoints_of(name: AppName, entries: tuple[Entry, ...]) -> Found:
    """The endpoints of one name among the entries of this host."""
    of_app = [entry for entry in entries if entry.app_id == name.app_id]
    of_name = [entry for entry in of_app if entry.namespace == name.namespace]
    if not of_name:  # without mTLS a namespace is but a word, as with Dapr; the merge has the last one
        of_name = [entry for entry in of_app if not entry.mesh and entry.serving]
    found = tuple(
        Endpoint(
            host="127.0.0.1",
            port=entry.peer_port,
            instance=entry.instance,
            source=REGISTRY_SOURCE,
            attributes=((NAMESPACE_ATTRIBUTE, entry.namespace), (MESH_ATTRIBUTE, entry.mesh)),
        )
        for entry in of_name
        if entry.serving
    )
    if found or not of_name:
        return found or _NO_ENTRY
    return SourceFailure(reason=", ".join(dict.fromkeys(map(why_not_serving, of_name))), missing=True)


def why_not_serving(entry: Entry) -> str:
    """Why a registered sidecar takes no calls, for people."""
    match entry.app_state:
        case "starting" | "down":
            yet = "does not listen yet" if entry.app_state == "starting" else "no longer listens"
            return f"registered (pid {entry.pid}), but its app {yet} on port {entry.app_port}"
        case "unhealthy":
            return f"registered (pid {entry.pid}), but its app fails its health probes"
        case _ if entry.expired:
            return f"registered (pid {entry.pid}), but its certificate has expired"
        case _:
            return f"registered (pid {entry.pid}), but it is starting or leaving"


class RegistryResolver:
    """Watches the registry while any name is watched. Owns `_pushed`: each watched name and what was pushed last."""

    source = REGISTRY_SOURCE
    lag_s = 0.0

    def __init__(self, registry: HostRegistry) -> None:
        self._registry = registry
        self._pushed: dict[AppName, Found | None] = {}
        self._woken = asyncio.Event()

    async def run(self, push: Push) -> None:
        """Push every change within 200 ms, until cancelled. Reads nothing while no name is watched."""

        while True:
            if not self._pushed:
                await self._woken.wait()
            self._woken.clear()
            self._compare(push)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()

    def watch(self, name: AppName) -> None:
        """Look the name up now and watch it."""
        self._pushed[name] = None
        self._woken.set()

    def forget(self, name: AppName) -> None:
        """Stop watching a name."""
        self._pushed.pop(name, None)
        self._woken.set()

    async def announce(self, instance: Instance) -> None:
        """Nothing: the sidecar's whole entry is written by `HostRegistry.register`."""

    async def withdraw(self) -> None:
        """Nothing, likewise."""

    def _compare(self, push: Push) -> None:
        problem: SourceFailure | None = None
        entries: tuple[Entry, ...] = ()
        try:
            entries = self._registry.entries({name.app_id for name in self._pushed})
        except OSError as error:
            problem = SourceFailure(reason=f"can't be read: {error.strerror}")
        for name, pushed in tuple(self._pushed.items()):
            found = problem or endpoints_of(name, entries)
            if found != pushed:
                self._pushed[name] = found
                push(REGISTRY_SOURCE, name, found)
