"""Many units as one run: started in parallel, stopped together, one exit code."""

import asyncio
import signal
from collections.abc import Mapping, Sequence

from proxy.cli.children import Guard
from proxy.cli.errors import FAILED, PARTLY
from proxy.cli.launch import AppSpec
from proxy.cli.output import Console
from proxy.cli.unit import Ended, Unit, Why
from proxy.control.lifetime import Terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEPENDENCY_S = 60.0  # how long an app waits for those that it depends on
CONNECT_S = 0.5
CONNECT_PAUSE_S = 0.05


class Run:
    """One `postern run`. The first signal stops in order, the second kills; SIGHUP, unless the terminal is gone, reloads all.

    State: `_signal` is the first signal, None until it came; `_results` the ended units by app-id.
    """

    def __init__(
        self,
        specs: Sequence[AppSpec],
        *,
        console: Console,
        environment: Mapping[str, str],
        keep_going: bool = False,
    ) -> None:
        self._specs = specs
        self._console = console
        self._environment = environment
        self._keep_going = keep_going
        self._terminal = Terminal()
        self._signal: signal.Signals | None = None
        self._first_failure: Ended | None = None
        self._results: dict[str, Ended] = {}
        self._units: dict[str, Unit] = {}

    async def run(self) -> int:
        """Run all until they end; the exit code."""
        loop = asyncio.get_running_loop()
        self._console.on_broken = self._stop_all
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            with Guard() as guard:
                for spec in self._specs:
                    unit = Unit(spec, console=self._console, guard=guard, environment=self._environment)
                    self._units[spec.app_id] = unit
                async with asyncio.TaskGroup() as tasks:
                    for unit in self._units.values():
                        tasks.create_task(self._one(unit))
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
        if (
            self._first_failure is not None and len(self._results) > 1
        ):  # the others' ends stand below it by now
            self._console.say("failed", self._first_failure.message)
        return exit_code(
            self._signal, tuple(self._results.values()), self._first_failure, keep_going=self._keep_going
        )

    def _on_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGHUP and not self._terminal.is_closed:
            self._console.say("info", "reloading the policies of every sidecar")
            for unit in self._units.values():
                unit.reload()
        elif self._signal is None:
            self._signal = number
            self._console.say("info", "stopping; once more to end at once")
            self._stop_all()
        else:
            for unit in self._units.values():
                unit.kill()

    def _stop_all(self) -> None:
        for unit in self._units.values():
            unit.stop()

    async def _one(self, unit: Unit) -> None:
        ended = await self._blocked(unit) or await unit.run()
        self._results[unit.spec.app_id] = ended
        unit.started.set()
        self._console.say("failed" if ended.failed else "ok", ended.message)
        if ended.failed and self._first_failure is None:
            self._first_failure = ended
        if ended.failed and not self._keep_going:
            self._stop_all()

    async def _blocked(self, unit: Unit) -> Ended | None:
        """Wait for the apps that this one needs; why it can't start, or None."""
        mine = unit.spec.app_id
        for name in unit.spec.depends_on:
            needed = self._units[name]
            try:
                async with asyncio.timeout(DEPENDENCY_S):
                    await needed.started.wait()
                    await self._until_accepting(needed)
            except TimeoutError:
                message = f"{mine}: not started, as {name} did not come up within {DEPENDENCY_S:.0f} s"
                return Ended(why=Why.START, code=FAILED, message=message)
            failed = name in self._results and self._results[name].failed
            if failed and not unit.is_asked:
                return Ended(why=Why.START, code=FAILED, message=f"{mine}: not started, as {name} failed")
        return Ended(why=Why.ASKED, code=0, message=f"{mine}: not started") if unit.is_asked else None

    async def _until_accepting(self, unit: Unit) -> None:
        """Poll until the app accepts connections or is over; at once for an app without a port."""
        settings = unit.spec.settings
        while settings.app_port is not None and not unit.is_asked and unit.spec.app_id not in self._results:
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, writer = await asyncio.open_connection(settings.app_channel_address, settings.app_port)
            except OSError:
                await asyncio.sleep(CONNECT_PAUSE_S)
                continue
            writer.close()
            return


def exit_code(
    stopped_by: signal.Signals | None,
    results: Sequence[Ended],
    first_failure: Ended | None,
    *,
    keep_going: bool,
) -> int:
    """128+n after signal n; else the first failure's code, 0 without one; 3 when some went well under --keep-going."""
    if first_failure is not None:
        others_went_well = any(not ended.failed for ended in results)
        return PARTLY if keep_going and others_went_well else first_failure.code
    return 0 if stopped_by is None else 128 + stopped_by
