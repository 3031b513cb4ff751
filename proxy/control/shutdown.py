"""The orderly end of a sidecar: unready, withdrawn, served on for `drain`, drained; then the app ends, with outbound open until it has."""

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from proxy.api.admin import Health
from proxy.contract.engine import Engine
from proxy.control.announcing import Announcing
from proxy.control.app_watch import AppWatch
from proxy.control.life_lines import LifeLines
from proxy.control.lifetime import Lifetime
from proxy.control.listening import Listening
from proxy.settings.values import Settings

_APP_END_S: Final = 10.0  # a supervised app's time to end once we take no calls for it
_BLOCK_LOOK_S: Final = 0.1  # between looks at the app's health while the shutdown is blocked
_UNBOUNDED_S: Final = 3_600.0  # for calls in flight where no flag bounds them


class Shutdown(Struct, frozen=True, kw_only=True):
    """Leads the parts through it. end_streams: ends the streams of our own APIs, which last as long as we do."""

    settings: Settings
    lifetime: Lifetime
    lines: LifeLines
    health: Health
    announcing: Announcing
    app: AppWatch
    engine: Engine
    listening: Listening
    end_streams: Callable[[], None]

    async def leave(self, reason: str) -> int:
        """Returns how many calls were cut."""
        settings, lifetime = self.settings, self.lifetime
        self.lines.leaving(reason)
        self.health.leave()
        if lifetime.by_signal and settings.block_shutdown_s:
            await self._block(settings.block_shutdown_s)
        self.end_streams()
        await self.announcing.withdraw()
        # Nobody need be served on once the app has ended by itself.
        await lifetime.app_ended(self._drain_s())
        within = settings.graceful_shutdown_s
        bound_s = within if within is not None else _UNBOUNDED_S
        cut = await self.engine.drain(("peer",), bound_s)
        lifetime.drained()
        if lifetime.supervised:
            await lifetime.app_ended(_APP_END_S)
        cut += await self.engine.drain(self.listening.local, bound_s)
        if cut:
            self.lines.cut(cut, within)
        else:
            self.lines.stopped()
        return cut

    async def _block(self, for_s: float) -> None:
        """Serve on, announced and unready, until the time is over, or the app is unhealthy or has ended."""
        self.lines.delaying(for_s)
        until = asyncio.get_running_loop().time() + for_s
        while self.app.healthy is not False and asyncio.get_running_loop().time() < until:
            if await self.lifetime.app_ended(_BLOCK_LOOK_S):
                return
        self.lines.delayed(healthy=self.app.healthy is not False)

    def _drain_s(self) -> float:
        """How long to serve on after withdrawing. As daprd not at all without calls in flight: its users' scripts wait for the exit."""
        if self.settings.profile == "daprd" and not self.engine.stats().calls_in_flight:
            return 0.0
        return self.settings.drain_s
