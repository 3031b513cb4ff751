"""Puts documents that changed in force, in every part that goes by them; those that can't be used change nothing."""

import random
import time
import zlib
from asyncio import Event, Future, TaskGroup, get_running_loop, timeout, to_thread
from typing import Any

from nameresolution.directory import Directory
from policies.errors import DocumentError
from policies.reloading.loading import PolicySnapshot, PolicySources
from policies.reloading.reader_process import ReaderProcess
from policies.reloading.watching import watch
from policies.rules.configuration import TracingConfig
from proxy.control.hop_tracing import HopTracing
from proxy.control.log_outputs import LogOutputs
from proxy.control.metrics_port import MetricsPort
from proxy.control.metrics_setup import MetricShapes, api_log, slow_ns
from proxy.control.name_sources import NameSources
from proxy.control.observer import Reporter
from proxy.control.plane import Control
from proxy.control.tapping import Taps
from proxy.control.tracing_setup import (
    RELAYED,
    app_target,
    are_exports_equal,
    exporters,
    hop_tracing,
    leads_back,
    span_form,
    tail_hook,
)
from proxy.errors import ConfigError
from proxy.settings.values import Settings
from telemetry.logs import get_logger
from telemetry.metrics import Meters
from telemetry.otlp.relays import Relays
from telemetry.tracing import Tracer

Json = dict[str, Any]
_ANSWER_S = 25.0  # a reload takes half a second; on a busy machine, or of a huge file, longer


class Reloads:
    """Mutable state: `policy`, the one in force, since when, the texts of the one before it, `error`, why newer documents were refused,
    if they were, the ports that are ours, how documents are read, and who waits to hear what came of it."""

    def __init__(
        self,
        settings: Settings,
        policy: PolicySnapshot,
        control: Control,
        *,
        meters: Meters,
        tracer: Tracer,
        relays: Relays,
        hops: HopTracing,
        reporter: Reporter,
        taps: Taps,
        shapes: MetricShapes,
        logs: LogOutputs,
        metrics_port: MetricsPort,
        names: NameSources,
        directory: Directory,
    ) -> None:
        self.policy = policy
        self.error: str | None = None
        self._settings = settings
        self._control = control
        self._meters = meters
        self._tracer = tracer
        self._relays = relays
        self._hops = hops
        self._reporter = reporter
        self._taps = taps
        self._shapes = shapes
        self._logs = logs
        self._metrics_port = metrics_port
        self._names = names
        self._directory = directory
        self._own_ports: frozenset[int] = frozenset()
        self._since = time.time()
        self._texts_before: tuple[tuple[str, bytes], ...] = ()
        self._asked: Event | None = None
        self._sources: PolicySources | None = None
        self._reader: ReaderProcess | None = None
        self._waiting: list[Future[DocumentError | None]] = []
        self._log = get_logger("postern")
        self._count_resources()

    async def run(self, sources: PolicySources, asked: Event) -> None:
        """Watch the documents, and read them when asked to as well."""
        self._asked, self._sources = asked, sources
        if not sources.has_files:
            await self._tell_of_nothing_to_reload(asked)
            return
        reader = self._reader = ReaderProcess()
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._metrics_port.keep())
                await watch(
                    *(sources, self.policy, self.changed, self.refused),
                    read=reader,
                    rest=reader.rest,
                    asked=asked,
                )
        finally:
            self._reader = None
            reader.close()

    async def reload(self) -> Json:
        """Read the documents now, put them in force, and tell what came of it. Raises: TimeoutError."""
        if self._asked is None or self._reader is None:
            return self._outcome("nothing", None)
        generation = self.policy.generation
        heard: Future[DocumentError | None] = get_running_loop().create_future()
        self._waiting.append(heard)
        self._asked.set()
        try:
            async with timeout(_ANSWER_S):
                error = await heard
        finally:
            if heard in self._waiting:
                self._waiting.remove(heard)
        is_same = self.policy.generation == generation
        return self._outcome("refused" if error else "unchanged" if is_same else "reloaded", error)

    async def compared(self) -> Json:
        """The documents in force as they were, and what is wrong with them as they are now, which changes nothing. Raises: TimeoutError."""
        error, sources, reader = None, self._sources, self._reader
        if sources is not None and reader is not None:
            try:
                async with timeout(_ANSWER_S):
                    await to_thread(reader, sources)
            except DocumentError as found:
                error = found
        return self._outcome("refused" if error else "nothing", error)

    def _outcome(self, result: str, error: DocumentError | None) -> Json:
        settings = self._settings
        return {
            "result": result,
            "generation": self.policy.generation,
            "since": self._since,
            "configurations": [str(path.absolute()) for path in settings.config_paths],
            "folders": [str(path.absolute()) for path in settings.resources_paths],
            "inForce": _texts(self.policy.texts),
            "before": _texts(self._texts_before),
            "warnings": list(self.policy.warnings),
            "faults": [
                {"path": str(one.path), "line": one.line, "field": one.field, "problem": one.problem}
                for one in (error.faults if error is not None else ())
            ],
        }

    def _tell(self, error: DocumentError | None) -> None:
        """Tell who waits. A load that was under way when one asked says nothing of the files as they were then: the next one does."""
        if self._asked is not None and self._asked.is_set():
            return
        for heard in self._waiting:
            if not heard.done():
                heard.set_result(error)
        self._waiting.clear()

    async def _tell_of_nothing_to_reload(self, asked: Event) -> None:
        while await asked.wait():
            asked.clear()
            self._log.info("nothing to reload: neither --config nor --resources-path was given")

    def changed(self, policy: PolicySnapshot) -> None:
        """Put these policies in force."""
        before = self.policy.configuration
        if policy.generation != self.policy.generation:
            self._since, self._texts_before = time.time(), self.policy.texts
        self.policy, self.error = policy, None
        self._logs.change(policy.configuration.logging)
        self._control.policy_changed(policy)
        self._count_resources()
        source = random.Random()  # noqa: S311 - ids, no secrets
        self._hops.follow(hop_tracing(policy.configuration.tracing, self._settings, source))
        self._reporter.recorder.form = span_form(policy.configuration.tracing)
        self._reporter.recorder.slow_ns = slow_ns(policy.configuration.tracing)
        self._tail_changed(policy.configuration.tracing)
        logging = policy.configuration.logging
        self._reporter.api_log = api_log(self._settings, logging)
        self._taps.obfuscate = self._reporter.hides_paths = logging.obfuscate_urls
        if not are_exports_equal(before.tracing, policy.configuration.tracing):
            self._exports_changed(policy.configuration.tracing)
        self._shapes.change(policy.configuration.metrics)
        self._metrics_port.want(policy.configuration.metrics.enabled)
        self._names.change(policy.configuration, self._directory)
        self._log.info("policies reloaded", generation=policy.generation)
        for warning in policy.warnings:
            self._log.warning(warning)
        self._tell(None)

    def listening(self, ports: frozenset[int]) -> None:
        """These ports are ours: what is exported to one of them would come back."""
        self._own_ports = ports
        tracing = self.policy.configuration.tracing
        targets = [app_target(signal, tracing, self._settings) for signal in ("traces", *RELAYED)]
        back = next((target for target in targets if target is not None and leads_back(target, ports)), None)
        if back is not None:
            self._log.warning(
                "the OTLP collector is this sidecar itself, so that spans stay in memory: name a collector in OTEL_EXPORTER_OTLP_ENDPOINT "
                "or spec.tracing.otel for the sidecar, and leave its own ports to the app",
                collector=back.address,
            )
            self._exports_changed(tracing)

    def refused(self, error: DocumentError) -> None:
        """Say why newer documents are not in force."""
        self.error = str(error)
        self._meters.reload_errors.add()
        self._log.error("policies not reloaded, the old ones stay in force", reason=str(error))
        self._tell(error)

    def _tail_changed(self, tracing: TracingConfig) -> None:
        recorder = self._reporter.recorder
        before = recorder.tail
        if tracing.tail_callable == (before.reference if before is not None else ""):
            return
        try:
            recorder.tail = tail_hook(tracing, recorder, self._meters)
        except ConfigError as error:
            self._log.error("tail callable not replaced, the old one stays in force", reason=str(error))
            return
        if before is not None:
            before.close()

    def _exports_changed(self, tracing: TracingConfig) -> None:
        try:
            sending = exporters(tracing, self._settings, self._own_ports)
            self._tracer.replace(sending.own, sending.app)
            self._relays.replace(sending.relayed)
            if self._logs.export is not None:
                self._logs.export.replace(sending.logs)
        except ConfigError as error:
            self._log.error("exporters not replaced, the old ones stay in force", reason=str(error))

    def _count_resources(self) -> None:
        for name, namespace in self.policy.resiliency.resources:
            self._meters.resiliency_loaded.add(self._settings.app_id, name, namespace)
        for component in self.policy.pipelines.components:
            self._meters.components_loaded.add(self._settings.app_id)
            self._meters.component_inits.add(self._settings.app_id, component.type)


def _texts(files: tuple[tuple[str, bytes], ...]) -> list[Json]:
    return [{"path": path, "text": _text(data)} for path, data in files]


def _text(data: bytes) -> str:
    return zlib.decompress(data).decode("utf-8-sig", "replace") if data else ""
