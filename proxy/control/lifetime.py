"""When a sidecar must stop, and what its supervisor is told.

SIGINT, SIGTERM, the shutdown API and the death of the supervisor all end in one event; a second signal ends the process at once. SIGHUP
means reload, as for daprd; but if it comes because our terminal was closed, it ends us like any other program there.

`--ready-fd` takes one JSON line once the listeners are bound. A supervisor (`postern run`, known by `--cli-pid`) gives a socket there
and keeps it: it hears `{"drained": true}` once no call comes in any more, and shuts its half when the app has ended. The socket
closes with it when it dies, so a sidecar never outlives its command.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ABORT_S = 0.1  # as Dapr has it


class Terminal:
    """The one that this process was started in, if any. SIGHUP means its end, or else a wish to reload."""

    def __init__(self) -> None:
        self._was_there = os.isatty(0)

    @property
    def is_closed(self) -> bool:
        """Whether there was one, and it is gone."""
        return self._was_there and not os.isatty(0)


class Lifetime:
    """One sidecar's life. Enter it inside the running loop; it installs the signal handlers and removes them on leaving.

    Owns the descriptor `ready_fd`. State: `reason` is empty until somebody asked us to stop, and never changes after that;
    `_signalled` is True once a signal was among them.
    """

    def __init__(
        self,
        ready_fd: int | None,
        *,
        supervised: bool,
        exit_at_once: Callable[[int], object] = os._exit,
    ) -> None:
        self.reason = ""
        self._exit_at_once = exit_at_once
        self._stop = asyncio.Event()
        self._app_ended = asyncio.Event()
        self._signalled = False
        self._link = ready_fd
        self.supervised = supervised and ready_fd is not None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._terminal = Terminal()
        self.reload_asked = asyncio.Event()

    def __enter__(self) -> Self:
        loop = self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        if self._link is not None:
            os.set_inheritable(self._link, False)
            if self.supervised:
                os.set_blocking(self._link, False)
                loop.add_reader(self._link, self._on_link)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            for number in (*SIGNALS, signal.SIGHUP):
                self._loop.remove_signal_handler(number)
        self._drop_link()

    def stop(self, reason: str) -> None:
        """Ask for the orderly end; the first reason stays."""
        self.reason = self.reason or reason
        self._stop.set()

    def abort(self) -> None:
        """End the process with code 1, without order, once the answer to who asked for it is out."""
        if self._loop is not None:
            self._loop.call_later(_ABORT_S, self._exit_at_once, 1)

    async def stop_asked(self) -> str:
        """Wait until somebody asks us to stop; returns why."""
        await self._stop.wait()
        return self.reason

    def ready(self, facts: Mapping[str, object]) -> None:
        """Say that the listeners are bound: `ports` (http, grpc, peer, metrics, public), `adminSocket`, `upstreams` (app: port)."""
        self._tell(facts)
        if not self.supervised:
            self._drop_link()

    def drained(self) -> None:
        """Tell the supervisor that no call comes in any more: the app may end."""
        if self.supervised:
            self._tell({"drained": True})

    async def app_ended(self, within_s: float) -> bool:
        """Wait until the supervisor says that the app has ended; False if it does not in time, or there is no supervisor."""
        try:
            async with asyncio.timeout(within_s):
                await self._app_ended.wait()
        except TimeoutError:
            return False
        return True

    def _on_signal(self, number: signal.Signals) -> None:
        if self._signalled:
            self._exit_at_once(128 + number)
        self._signalled = True
        self.stop(number.name)

    def _on_hangup(self) -> None:
        if self._terminal.is_closed:
            self._on_signal(signal.SIGHUP)
        else:
            self.reload_asked.set()

    @property
    def by_signal(self) -> bool:
        """Whether a signal is what began the end."""
        return self.reason in {number.name for number in (*SIGNALS, signal.SIGHUP)}

    def _on_link(self) -> None:
        """The supervisor never writes: readable means that it shut its half (the app has ended) or is gone."""
        if self._link is None or self._loop is None:
            return
        with contextlib.suppress(OSError):
            if os.read(self._link, 64):
                return
        self._loop.remove_reader(self._link)
        self._app_ended.set()
        self.stop("app or supervisor ended")

    def _tell(self, message: Mapping[str, object]) -> None:
        if self._link is None:
            return
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with contextlib.suppress(
            OSError
        ):  # the other end is gone; a supervisor's death is seen by the reader
            os.write(self._link, line)

    def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        if self.supervised and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(link)
        os.close(link)
