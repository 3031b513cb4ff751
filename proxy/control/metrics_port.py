"""The port of metrics: open while the Configuration in force has them enabled, where no flag closes it."""

import asyncio
from collections.abc import Callable

from proxy.control.listening import Listening
from proxy.errors import ListenError
from telemetry.logs import get_logger


class MetricsPort:
    """Opens and closes it as it is wanted. Mutable state: whether that is so. moved: called where the port has changed."""

    def __init__(self, listening: Listening, moved: Callable[[], None]) -> None:
        self._listening = listening
        self._moved = moved
        self._is_wanted = listening.has_metrics
        self._turned = asyncio.Event()
        self._log = get_logger("postern")

    def want(self, is_wanted: bool) -> None:
        """Have it open or closed."""
        self._is_wanted = is_wanted
        self._turned.set()

    async def keep(self) -> None:
        """Work until cancelled."""
        while await self._turned.wait():
            self._turned.clear()
            before = self._listening.ports.get("metrics")
            try:
                await self._listening.serve_metrics(self._is_wanted)
            except ListenError as error:
                self._log.error("metrics are not served", reason=str(error))
            port = self._listening.ports.get("metrics")
            if port != before:
                self._log.info("the port of metrics changed", port=port or "closed")
                self._moved()
