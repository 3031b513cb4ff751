"""What a sidecar says of itself: its status, what documents have put in force, why it is not ready, and what a scrape finds."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from nameresolution.directory import Directory
from proxy.api.admin import Health
from proxy.contract.engine import Engine
from proxy.control.announcing import Announcing
from proxy.control.app_watch import AppWatch
from proxy.control.breakers import scrape_breakers
from proxy.control.ejections import Ejections
from proxy.control.identity import Identity
from proxy.control.limit_gates import gates_status, scrape_gates
from proxy.control.listening import Listening
from proxy.control.log_outputs import LogOutputs
from proxy.control.not_ready import reasons
from proxy.control.own_status import Json, app_status, engine_status, exporters_status, identity_status
from proxy.control.plane import Control
from proxy.control.reloads import Reloads
from proxy.control.resolved import budgets_status, endpoints_status, resolved
from proxy.control.tracing_setup import collectors, with_variables
from proxy.settings.values import Settings
from proxy.settings.version import VERSION
from telemetry.kinds import edge_name
from telemetry.metrics import Meters
from telemetry.otlp.relays import Relays
from telemetry.tracing import AnyQueue, Tracer

_MOST_GATES = 100
_MOST_BREAKERS = 100  # of which the worst come first


class Description(Struct, frozen=True, kw_only=True):
    """Reads the parts when asked. identity: the one that is held, None before there is one."""

    settings: Settings
    engine: Engine
    engine_notice: str
    control: Control
    directory: Directory
    listening: Listening
    announcing: Announcing
    app: AppWatch
    health: Health
    reloads: Reloads
    ejections: Ejections
    meters: Meters
    method_label: Callable[[str], str]
    tracer: Tracer
    relays: Relays
    logs: LogOutputs
    identity: Callable[[], Identity | None]
    host_ip: str
    admin_socket: Path

    def not_ready(self, missing: list[str]) -> list[str]:
        """Why we are not ready, of the parts that are missing and the app."""
        held = self.identity()
        return reasons(missing, self.settings, held.status() if held is not None else {}, self.app)

    def resources(self) -> Mapping[str, Sequence[Json | str]]:
        """What documents have put in force, by the keys of Dapr's metadata."""
        policy = self.reloads.policy
        return {
            "enabledFeatures": policy.configuration.features,
            "components": [
                {"name": one.name, "type": one.type, "version": one.version}
                for one in policy.pipelines.components
            ],
            "resiliencies": [{"name": name} for name, _ in policy.resiliency.resources],
            "httpEndpoints": [{"name": name} for name in sorted(policy.http_endpoints)],
        }

    def status(self) -> Json:
        """All of it, as `/status` has it."""
        settings, stats, policy = self.settings, self.engine.stats(), self.reloads.policy
        not_ready = self.not_ready([*self.health.missing(but=("app",)), "app"])
        return {
            "appId": settings.app_id,
            "namespace": settings.namespace,
            "instance": settings.instance,
            "pid": os.getpid(),
            "version": VERSION,
            "engine": self.engine.name,
            "engineNotice": self.engine_notice,
            "profile": settings.profile,
            "ready": not not_ready,
            "notReady": not_ready,
            "startedAt": self.announcing.started_at,
            "ports": {**self.listening.ports, "app": settings.app_port},
            "addresses": {"advertised": self.host_ip, "adminSocket": str(self.admin_socket)},
            "identity": identity_status(settings, self.identity()),
            "app": app_status(
                settings,
                self.app,
                announced=self.announcing.serving and not self.announcing.leaving,
            ),
            "naming": {
                str(found.name): [end.address for end in found.endpoints] for found in self.directory.known()
            },
            "authorizers": self.control.authorizers.status(),
            "maxRequestBodySize": settings.max_body_bytes or 0,
            "httpReadBufferSize": settings.read_buffer_bytes,
            "policy": {
                "generation": policy.generation,
                "files": [str(path) for path in settings.config_paths],
                "folders": [str(path) for path in settings.resources_paths],
                "warnings": list(policy.warnings),
                "lastError": self.reloads.error,
            },
            "engineStats": engine_status(stats),
            "limits": gates_status(stats.gates)[:_MOST_GATES],
            "circuitBreakers": self.control.breakers(hides_paths=policy.configuration.logging.obfuscate_urls)[
                :_MOST_BREAKERS
            ],
            "ejectedEndpoints": self.ejections.status(),
            "exporters": exporters_status(
                (*self.tracer.used_queues, *self.relays.used_queues, *self._log_queues()),
                with_variables(policy.configuration.tracing, settings.otel),
                collectors(policy.configuration.tracing, settings),
            ),
            "routes": self.control.naming.routes(),
            "services": self.control.naming.services(),
            "upstreams": self.listening.upstream_ports,
            "shutdown": "draining" if self.announcing.leaving else "serving",
        }

    def dump(self) -> Json:
        """The same, and what is asked for by who looks for the cause of a failure, as `/postern/v1/dump` has it."""
        control = self.control
        return {
            **self.status(),
            "policies": resolved(control.outbound.view, control.inbound.view),
            "endpoints": endpoints_status(control.naming.endpoints(None), self._external_loads()),
            "retryBudgets": budgets_status(self.engine.budgets()),
        }

    def _external_loads(self) -> Mapping[str, Sequence[Mapping[str, object]]]:
        """What the engine knows of the addresses of each cluster outside of the mesh."""
        return {key: self.engine.loads(key) for key in self.control.external.hosts.keys}

    def _log_queues(self) -> tuple[AnyQueue, ...]:
        return () if self.logs.export is None else self.logs.export.queues

    def scrape(self) -> None:
        """Set the gauges that nobody keeps up to date in between."""
        self.meters.policy_generation.set(self.reloads.policy.generation)
        stats = self.engine.stats()
        self.meters.calls_in_flight.set(stats.calls_in_flight)
        self.meters.upstream_connections.set(stats.upstream_connections)
        scrape_gates(self.meters, stats.gates)
        self._scrape_open()
        resiliency = self.reloads.policy.resiliency
        scrape_breakers(self.meters, resiliency, self.engine.breakers(), self.method_label)
        self.ejections.scrape()
        held = self.identity()
        svid = held.current if held is not None else None
        if svid is not None:
            ends = {
                "workload": svid.not_after,
                "issuer": svid.issuer_not_after,
                "root": svid.bundle.not_after,
            }
            for kind, end in ends.items():
                if end is not None:
                    self.meters.cert_expiry.set(end.timestamp(), kind)
        counts: Counter[tuple[str, ...]] = Counter()
        for known in self.directory.known():
            counts.update((known.name.app_id, end.source) for end in known.endpoints)
        self.meters.resolver_endpoints.replace(counts)

    def _scrape_open(self) -> None:
        meters, work = self.meters, self.engine.open_work()
        meters.streams.set(work.streams_in, "in")
        meters.streams.set(work.streams_out, "out")
        meters.replay_bytes.set(work.replay_bytes)
        if work.lag_s is not None:
            meters.engine_lag.set(work.lag_s)
        # Edges that were met before stay, at 0.
        for slot in meters.edge_in_flight.slots.values():
            slot.set(0)
        for labels, count in work.calls.items():
            if labels.dst:
                src = edge_name(labels.src, labels.src_namespace)
                dst = edge_name(labels.dst, labels.dst_namespace)
                meters.edge_in_flight.slot(src, dst, labels.direction).add(count)
