"""Consul as a source of endpoints: registers us while we are announced, and waits for each watched app's news by blocking queries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable

from nameresolution.consul.agent import Answer, ConsulAgent, Healthy
from nameresolution.consul.registration import (
    INSTANCE_META,
    MESH_META,
    NAMESPACE_META,
    Registration,
    registration,
    service_id,
    withdrawn,
)
from nameresolution.consul.settings import ConsulSettings
from nameresolution.errors import AnnouncementError, ConsulError
from nameresolution.resolver import (
    MESH_ATTRIBUTE,
    NAMESPACE_ATTRIBUTE,
    AppName,
    Endpoint,
    Found,
    Instance,
    Push,
    SourceFailure,
    join_address,
)
from telemetry.hosts import split_address

_LOG = logging.getLogger("postern.nameresolution.consul")

CONSUL_SOURCE = "consul"
MAX_WAITING = (
    32  # queries at once: an agent takes 200 connections from one address, and other sidecars have theirs
)
_SHARED_WAIT_S = 2.0  # of one query, where more names than that take turns
_KEEP_S = 10.0  # between two looks whether we are still registered: an agent that restarts may forget
_RETRY_S = (0.5, 1.0, 2.0, 5.0)
_BREATH_S = 0.1  # between two queries for one name, however fast its news come
_MAX_WEIGHT = 1000


class ConsulResolver:
    """Owns `_names` (watched names by app-id), `_found` (the last word on each app-id) and `_service` (as registered while announced)."""

    source = CONSUL_SOURCE
    lag_s = 2 * _BREATH_S

    def __init__(self, settings: ConsulSettings, agent: ConsulAgent) -> None:
        self._settings = settings
        self._agent = agent
        self._names: dict[str, set[AppName]] = {}
        self._found: dict[str, Found] = {}
        self._push: Push | None = None
        self._service: Registration | None = None
        self._registering = asyncio.Lock()
        self._is_registered = False
        self._fault = ""  # of registering, as logged last
        self._watched = asyncio.Event()  # what is watched has changed
        self._announced = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_WAITING)

    async def run(self, push: Push) -> None:
        """Follow what is watched and stay registered, until cancelled. An agent that doesn't answer is a failure that is pushed."""
        self._push = push
        self._found.clear()
        following: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            if self._settings.registers:
                tasks.create_task(self._stay_registered())
            while True:
                self._watched.clear()
                for app_id in self._names.keys() - following.keys():
                    following[app_id] = tasks.create_task(self._follow(app_id), name=f"consul {app_id}")
                for app_id in following.keys() - self._names.keys():
                    following.pop(app_id).cancel()
                    self._found.pop(app_id, None)
                await self._watched.wait()

    def watch(self, name: AppName) -> None:
        """Push what is known of a name, now or as soon as the agent has answered, and every change."""
        self._names.setdefault(name.app_id, set()).add(name)
        self._watched.set()
        if self._push is not None and name.app_id in self._found:
            self._push(CONSUL_SOURCE, name, self._found[name.app_id])

    def forget(self, name: AppName) -> None:
        """Stop watching a name."""
        names = self._names.get(name.app_id, set())
        names.discard(name)
        if not names:
            self._names.pop(name.app_id, None)
            self._watched.set()

    async def announce(self, instance: Instance) -> None:
        """Register, now or as soon as the agent answers."""
        if not self._settings.registers:
            return
        try:
            self._service = registration(self._settings, instance)
        except AnnouncementError as error:
            _LOG.warning("%s", error)
            return
        if not self._settings.checks and self._settings.advanced is None:
            self._warn_of_unreachable(instance)
        self._is_registered = False
        await self._try(self._register())
        self._announced.set()

    def _warn_of_unreachable(self, instance: Instance) -> None:
        agent, ours = split_address(self._agent.where)[0], instance.http_host or instance.host
        if agent and _stays_here(ours) and not _stays_here(agent):
            _LOG.warning(
                "the agent at %s can't ask %s for our health and will take us for dead: pass --dapr-listen-addresses, or configure checks",
                self._agent.where,
                join_address(ours, instance.http_port),
            )

    async def withdraw(self) -> None:
        """Stop calls to us: by a failed check, or by deregistering where that is configured or there is no check."""
        service, self._service = self._service, None
        if service is None:
            return
        failed = None if self._settings.deregisters else withdrawn(service)
        async with self._registering:
            try:
                if failed is None:
                    await self._agent.deregister(service_id(service))
                else:
                    await self._agent.register(failed)
            except ConsulError as error:
                _LOG.warning("others may call us until our checks fail: %s", error)

    async def _stay_registered(self) -> None:
        failures = 0
        while True:
            if self._service is None:
                await self._announced.wait()
            self._announced.clear()
            works = await self._try(self._register())
            failures = 0 if works else failures + 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KEEP_S if works else _pause_s(failures)):
                    await self._announced.wait()

    async def _register(self) -> None:
        async with self._registering:
            service = self._service
            if service is None:
                return
            if self._is_registered:
                if await self._agent.is_registered(service_id(service)):
                    return
                _LOG.warning("%s has forgotten %s, registering again", self._agent.where, service_id(service))
            self._is_registered = False
            await self._agent.register(service)
            self._is_registered = True

    async def _try(self, work: Awaitable[None]) -> bool:
        try:
            await work
        except ConsulError as error:
            if str(error) != self._fault:
                _LOG.warning("not registered, trying again: %s", error)
            self._fault = str(error)
            return False
        if self._fault:
            _LOG.info("%s works again", self._agent.where)
        self._fault = ""
        return True

    async def _follow(self, app_id: str) -> None:
        settings, index, failures = self._settings, 0, 0
        while True:
            try:
                async with self._slots:
                    answer = await self._agent.healthy(
                        app_id, index, self._wait_s(), settings.query, settings.query_headers
                    )
            except ConsulError as error:
                fix = "see that the agent runs, and its address" if "answered" not in error.problem else ""
                self._publish(app_id, SourceFailure(reason=f"{error.where}: {error.problem}", fix=fix))
                index, failures = 0, failures + 1
                await asyncio.sleep(_pause_s(failures))
                continue
            # An index that went backwards is of another life of the servers: begin anew.
            index, failures = (answer.index if answer.index >= index else 0), 0
            self._publish(app_id, self._endpoints(app_id, answer))
            await asyncio.sleep(_BREATH_S)

    def _wait_s(self) -> float:
        return self._settings.wait_s if len(self._names) <= MAX_WAITING else _SHARED_WAIT_S

    def _endpoints(self, app_id: str, answer: Answer) -> Found:
        found = tuple(
            end for one in answer.instances if (end := _endpoint(one, self._settings.port_key)) is not None
        )
        if found:
            return found
        if answer.instances:
            reason = f"{app_id} is there, but {self._settings.port_key} is missing from its meta"
        else:
            reason = f"no instance of {app_id} whose checks pass"
        return SourceFailure(reason=reason, missing=True)

    def _publish(self, app_id: str, found: Found) -> None:
        if self._push is None or self._found.get(app_id) == found:
            return
        self._found[app_id] = found
        for name in tuple(self._names.get(app_id, ())):
            self._push(CONSUL_SOURCE, name, found)


def _stays_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _pause_s(failures: int) -> float:
    return _RETRY_S[min(failures, len(_RETRY_S)) - 1]


def _endpoint(one: Healthy, port_key: str) -> Endpoint | None:
    meta = one.service.meta or {}
    port, host = meta.get(port_key, ""), one.service.address or one.node.address
    if not host or not (port.isascii() and port.isdigit()) or len(port) > 5 or not 0 < int(port) < 65536:
        return None
    hints = ((NAMESPACE_ATTRIBUTE, meta.get(NAMESPACE_META)), (MESH_ATTRIBUTE, meta.get(MESH_META)))
    weight = one.service.weights.passing if one.service.weights is not None else 1
    return Endpoint(
        host=host,
        port=int(port),
        instance=meta.get(INSTANCE_META) or one.service.id,
        source=CONSUL_SOURCE,
        weight=min(max(weight, 1), _MAX_WEIGHT),
        attributes=tuple((key, value) for key, value in hints if value),
    )
