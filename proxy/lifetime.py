"""When a sidecar must stop, and what its supervisor hears of it.

Signals, the shutdown API and the death of the supervisor all end in one event; a second signal ends the process at once. The supervisor
(`postern run`) holds the other end of a socket, `--ready-fd`. On it the sidecar writes one JSON object a line: `{"ready": {...}}` once
its listeners are bound, `{"drained": true}` once no call comes in any more. The supervisor shuts its half when the app has ended, and
the socket closes with it when it dies, so a sidecar never outlives its command.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Lifetime:
    """One sidecar's life. Enter it inside the running loop; it installs the signal handlers and removes them on leaving.

    Owns the descriptor `ready_fd`. State: `reason` is empty until somebody asked us to stop, and never changes after that.
    """

    def __init__(self, ready_fd: int | None, *, exit_at_once: Callable[[int], object] = os._exit) -> None:
        self.reason = ""
        self._exit_at_once = exit_at_once
        self._stop = asyncio.Event()
        self._app_ended = asyncio.Event()
        self._link = None if ready_fd is None else socket.socket(fileno=ready_fd)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        loop = self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        if self._link is not None:
            self._link.setblocking(False)
            loop.add_reader(self._link, self._on_link)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            for number in SIGNALS:
                self._loop.remove_signal_handler(number)
        self._drop_link()

    def stop(self, reason: str) -> None:
        """Ask for the orderly end; the first reason stays."""
        self.reason = self.reason or reason
        self._stop.set()

    async def stop_asked(self) -> str:
        """Wait until somebody asks us to stop; returns why."""
        await self._stop.wait()
        return self.reason

    def ready(self, facts: Mapping[str, object]) -> None:
        """Tell the supervisor that the listeners are bound: `ports`, `addresses`, `adminSocket`, `upstreams` …"""
        self._tell({"ready": dict(facts)})

    def drained(self) -> None:
        """Tell the supervisor that no call comes in any more: the app may end."""
        self._tell({"drained": True})

    async def app_ended(self, within_s: float) -> bool:
        """Wait until the supervisor says that the app has ended; at once without a supervisor. False: it did not say so in time."""
        if self._link is None:
            return True
        try:
            async with asyncio.timeout(within_s):
                await self._app_ended.wait()
        except TimeoutError:
            return False
        return True

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set() and self.reason.startswith("SIG"):
            self._exit_at_once(128 + number)
        self.stop(number.name)

    def _on_link(self) -> None:
        """The supervisor never writes: readable means that it shut its half (the app has ended) or is gone."""
        link = self._link
        if link is None:
            return
        with contextlib.suppress(OSError):
            if link.recv(64):
                return
        self._drop_link()
        self._app_ended.set()
        self.stop("supervisor gone")

    def _tell(self, message: Mapping[str, object]) -> None:
        if self._link is None:
            return
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            self._link.send(line)
        except OSError:
            self._on_link()

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(link)
        link.close()
