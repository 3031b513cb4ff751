"""One run: starts upstreams and targets, loads them in turn, and takes a sample of each window."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import envoy, instances, peer_callers, postern, relay, results
from tests.bench.cases import NATIVE, SCRAPED, VARIANTS, Case
from tests.bench.errors import BenchError, LoadError
from tests.bench.load import Load, Window, hold_idle, run_load
from tests.bench.results import Row, Sample
from tests.bench.scraping import peak_mb, reset_peak, scraped
from tests.bench.sink import Sink, span_sink
from tests.bench.spans import Account, account
from tests.bench.stolen import Stolen
from tests.bench.targets import Target, check_answer
from tests.bench.upstreams import Upstreams, start_upstreams, write_message
from tests.support.errors import SupportError
from tests.support.mesh import Mesh
from tests.support.processes import Process, Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long each part of a measurement takes; `share` of the calls where a window ends after so many."""

    warm_up_s: float
    window_s: float
    rounds: int
    share: float = 1.0
    spare: int = 0  # windows of a whole run that may be taken anew


THOROUGH: Final = Pace(warm_up_s=2.0, window_s=5.0, rounds=3, spare=60)
QUICK: Final = Pace(warm_up_s=0.5, window_s=1.0, rounds=1, share=0.05)
_WARM_UP_SHARE: Final = 0.2
_UNARY_ALONE: Final = frozenset({envoy.ALL_ON, relay.NAME, *VARIANTS})  # whose bars are of that case
_RESTLESS_LEAST_S: Final = 3.0
_RESTLESS_SHARE: Final = 0.5  # of the seconds, on a busy machine
_STOLEN: Final = 0.02  # of the cores' time; a p99 does not survive more
_TRIES: Final = 4
_SETTLE_S: Final = 2.0  # a fresh sidecar's warm-up
_IDLE_S: Final = 13.0  # then a connection is idle: 500 of HTTP/2 begin to rest each second


class Bench:
    """Everything is started in `processes` or in a mesh.

    State: the upstreams, targets' sinks, numbers of calls made, windows taken anew, what failed.
    """

    def __init__(self, folder: Path, stack: AsyncExitStack, console: Console) -> None:
        self._folder = folder
        self._stack = stack
        self._console = console
        self._processes = Processes()
        stack.push_async_callback(self._processes.aclose)
        self._upstreams: Upstreams | None = None
        self._sinks: dict[str, Sink] = {}
        self._made: dict[str, int] = {}
        self.anew = 0
        self.failures = 0

    async def start_targets(self, names: Sequence[str], cases: Sequence[Case]) -> list[Target]:
        """Start the named targets; those that can't start are reported, counted in `failures` and left out."""
        self._upstreams = await start_upstreams(self._processes)
        started = []
        for name in names:
            self._console.print(f"starting {name}", style="dim")
            try:
                started.append(await self._start_target(name, self._upstreams, cases))
            except (BenchError, SupportError) as error:
                self._fail(f"{name} does not start: {error}")
        return started

    async def _start_target(self, name: str, upstreams: Upstreams, cases: Sequence[Case]) -> Target:
        if name == "direct":
            ports = {"grpc": upstreams.grpc_port, "http1": upstreams.http_port}
            return Target(name=name, ports=ports, proxies=lambda _: ())  # type: ignore[arg-type]
        if name == "envoy":
            return await envoy.start_mesh(self._processes, self._folder, upstreams)
        if name == envoy.ALL_ON:
            return await envoy.start_mesh(
                self._processes, self._folder, upstreams, sink_port=(await self._sink(name)).port
            )
        if name == relay.NAME:
            return await relay.start(self._processes, self._folder, upstreams)
        mesh = await self._stack.enter_async_context(Mesh(self._new_folder(name)))
        sink = await self._sink(name)
        return await postern.start_mesh(mesh, name.removeprefix("postern-"), upstreams, sink.port, cases)

    async def _sink(self, name: str) -> Sink:
        sink = self._sinks[name] = await self._stack.enter_async_context(span_sink())
        return sink

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    async def measure(self, cases: Sequence[Case], targets: Sequence[Target], pace: Pace) -> list[Row]:
        """Measure cases, those of one group in turn."""
        rows: list[Row] = []
        for _, group in groupby(cases, key=lambda case: case.group or case.name):
            together = list(group)
            if any(case.peers for case in together):
                rows += await self._measure_peers(together, targets, pace)
            elif together[0].group == "instances":
                rows += await self._measure_instances(together, targets, pace)
            else:
                rows += await self._measure_group(together, targets, pace)
        return rows

    async def _measure_peers(self, cases: Sequence[Case], targets: Sequence[Target], pace: Pace) -> list[Row]:
        """By callers that did nothing before, in a mesh of their own, so that all call the same peers."""
        assert self._upstreams is not None
        asked = [target for target in targets if any(_is_for(case, target) for case in cases)]
        if not asked:
            return []
        try:
            async with _own_mesh() as (mesh, sink_port):
                callers = await peer_callers.start(mesh, self._upstreams, sink_port, cases, asked)
                return await self._measure_group(cases, callers, pace)
        except (BenchError, SupportError) as error:
            self._fail(f"peers: {error}")
            return []

    async def _measure_instances(
        self, cases: Sequence[Case], targets: Sequence[Target], pace: Pace
    ) -> list[Row]:
        """In a mesh of their own, as each app has instances of its own."""
        asked = [target.name for target in targets if target.name in {"envoy", NATIVE}]
        if not asked:
            return []
        try:
            async with _own_mesh() as (mesh, sink_port):
                balancers = await instances.start(mesh, self._new_folder("instances"), sink_port, asked)
                return await self._measure_group(cases, balancers, pace)
        except (BenchError, SupportError) as error:
            self._fail(f"instances: {error}")
            return []

    async def _measure_group(self, cases: Sequence[Case], targets: Sequence[Target], pace: Pace) -> list[Row]:
        """Warm every target, then load them in turn (A B C, A B C), so that a slow minute of the machine falls on all.

        A target that answers wrongly or fails a call is reported, counted and has no row.
        """
        pairs = [(case, target) for case in cases for target in targets if _is_for(case, target)]
        samples: dict[tuple[str, str], list[Sample]] = {
            (case.name, target.name): [] for case, target in pairs
        }
        rounds = max((_rounds(case, pace) for case in cases), default=0)
        for number in range(rounds + 1):
            for case, target in pairs:
                taken = samples.get((case.name, target.name))
                if taken is None or number > _rounds(case, pace):
                    continue
                step = f"round {number} of {_rounds(case, pace)}" if number else "warm-up"
                self._console.print(f"{case.name}, {step}: {target.name}", style="dim")
                try:
                    if number:
                        taken.append(await self._fair_sample(case, target, pace))
                    else:
                        await self._warm_up(case, target, pace)
                except (BenchError, SupportError) as error:
                    self._fail(f"{target.name}, {case.name}: {error}")
                    del samples[case.name, target.name]
        return [
            results.summarise(
                case.name, target.name, samples[case.name, target.name], target.startup_s, size=case.size
            )
            for case, target in pairs
            if samples.get((case.name, target.name))
        ]

    def _fail(self, text: str) -> None:
        self.failures += 1
        self._console.print(text, style="red", markup=False)

    async def _warm_up(self, case: Case, target: Target, pace: Pace) -> None:
        await check_answer(target, case)
        if not case.is_restless and not case.idle:
            window = self._window(case, pace.warm_up_s, pace.share * _WARM_UP_SHARE)
            await self._load(case, target.ports[case.protocol], window)

    async def _fair_sample(self, case: Case, target: Target, pace: Pace) -> Sample:
        """Of a window in which the cores were ours, or the least disturbed of `_TRIES`."""
        best = await self._sample(case, target, pace)
        for _ in range(1, _TRIES):
            if best.stolen <= _STOLEN or case.is_for_memory or self.anew >= pace.spare:
                break
            self.anew += 1
            again = await self._sample(case, target, pace)
            best = min(best, again, key=lambda sample: sample.stolen)
        return best

    async def _sample(self, case: Case, target: Target, pace: Pace) -> Sample:
        window = self._window(case, pace.window_s, pace.share)
        if case.is_restless:
            return await self._restless_sample(case, window)
        if case.idle:
            return await self._idle_sample(case, target, window)
        async with scraped(target.sidecars if target.name == SCRAPED else ()):
            return await self._plain_sample(case, target.proxies(case), target.ports[case.protocol], window)

    def _window(self, case: Case, seconds: float, share: float) -> Window:
        calls = None if case.calls is None else max(case.connections, round(case.calls * share))
        first = self._made.get(case.name, 0)
        self._made[case.name] = first + (calls or 0)
        return Window(seconds=seconds, calls=calls, first=first)

    async def _plain_sample(
        self, case: Case, proxies: Sequence[Process], port: int, window: Window
    ) -> Sample:
        for proxy in proxies:
            reset_peak(proxy)
        stolen, before_s = Stolen(), _cpu_s(proxies)
        load = await self._load(case, port, window)
        used_s = _cpu_s(proxies) - before_s
        return Sample(
            load=load,
            cpu_us_per_call=used_s * 1e6 / load.calls if proxies else None,
            rss_mb=max((proxy.rss_mb() for proxy in proxies), default=None),
            peak_mb=max((peak_mb(proxy) for proxy in proxies), default=None),
            stolen=stolen.share(),
        )

    async def _idle_sample(self, case: Case, target: Target, window: Window) -> Sample:
        """By a fresh sidecar of the caller: what another round left behind would hide what connections take."""
        assert target.another is not None
        sidecar = await target.another()
        ports = {"grpc": sidecar.grpc_port, "http1": sidecar.http_port}
        try:
            await self._load(case, ports[case.protocol], Window(seconds=_SETTLE_S))
            before_mb = sidecar.process.rss_mb()
            holder = await hold_idle(self._processes, case, ports[case.idle_protocol])
            await asyncio.sleep(_IDLE_S)
            idle_kb = (sidecar.process.rss_mb() - before_mb) * 1024 / case.idle
            proxies = (sidecar.process, *target.proxies(case)[1:])
            sample = await self._plain_sample(case, proxies, ports[case.protocol], window)
            await holder.end()
            return replace(sample, idle_kb=idle_kb)
        finally:
            await sidecar.end()

    async def _restless_sample(self, case: Case, window: Window) -> Sample:
        """By a mesh of its own, as what goes on in it would disturb others."""
        assert self._upstreams is not None
        window = replace(window, seconds=max(window.seconds, _RESTLESS_LEAST_S))
        async with (
            _own_mesh() as (mesh, sink_port),
            postern.restless_mesh(mesh, self._upstreams, sink_port) as target,
        ):
            await self._load(case, target.ports[case.protocol], Window(seconds=_SETTLE_S))
            before = await postern.config_churn(target)
            sample = await self._plain_sample(case, target.proxies(case), target.ports[case.protocol], window)
            after = await postern.config_churn(target)
        replaced = [new - old for old, new in zip(before, after, strict=True)]
        if min(replaced) < window.seconds / postern.RESTLESS_S * _RESTLESS_SHARE:
            raise LoadError(
                f"in {window.seconds:g} s policies and certificates were replaced {replaced} times"
            )
        return sample

    async def _load(self, case: Case, port: int, window: Window) -> Load:
        return await run_load(self._processes, case, port, write_message(self._folder, case), window)

    async def accounts(self, targets: Sequence[Target]) -> list[Account]:
        """What became of the spans of targets that trace every call."""
        traced = [target for target in targets if target.name.endswith("-traced")]
        found = [await account(target, self._sinks[target.name]) for target in traced]
        return [one for one in found if one.calls]


@asynccontextmanager
async def _own_mesh() -> AsyncIterator[tuple[Mesh, int]]:
    """A mesh beside the others, and the port that its traces go to."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with span_sink() as sink, Mesh(Path(folder)) as mesh:
            yield mesh, sink.port


def _is_for(case: Case, target: Target) -> bool:
    if case.targets:
        return target.name in case.targets
    return case.protocol in target.ports and (case.name == "grpc-unary" or target.name not in _UNARY_ALONE)


def _rounds(case: Case, pace: Pace) -> int:
    return pace.rounds if case.rounds is None or pace.rounds == 1 else case.rounds


def _cpu_s(proxies: Iterable[Process]) -> float:
    return sum(proxy.cpu_s() for proxy in proxies)
