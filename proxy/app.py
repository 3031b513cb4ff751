"""Composition root of one sidecar: the one module that constructs everything; owns the outer TaskGroup.

Life cycle: bind, report the ports, get an identity, announce, serve; then turn unready, withdraw, serve on for `drain`, send GOAWAY, finish
what is in flight, let the app end, keep outbound open until it has.
"""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from nameresolution.addresses import advertised_address
from nameresolution.directory import Directory
from nameresolution.errors import NameResolutionError
from nameresolution.host_registry import HostRegistry
from nameresolution.resolver import Resolver
from nameresolution.resolvers import Surroundings, build
from policies.errors import DocumentError
from policies.reloading.loading import PolicySnapshot
from policies.reloading.reader_process import Loading, ReaderProcess
from policies.reloading.watching import watch
from policies.rules.configuration import TracingConfig
from proxy.api.admin import Admin, Health, Json
from proxy.api.dapr.starting import Callback, DaprApi
from proxy.api.daprd.server import Translating, Translators
from proxy.api.server import LocalHttp
from proxy.contract.engine import Cluster, Upstream
from proxy.control.announcing import Announcing
from proxy.control.app_watch import CONFIG_PATH, AppWatch
from proxy.control.explaining import Explainer
from proxy.control.identity import Identity, WorkloadName
from proxy.control.life_lines import life_lines
from proxy.control.lifetime import Lifetime
from proxy.control.listening import Listening, guarded
from proxy.control.metrics_setup import access_log, api_log, fixed_sections_changed, meters, recorder
from proxy.control.not_ready import reasons
from proxy.control.observer import HopTracing, Reporter
from proxy.control.own_status import app_status, engine_status, exporters_status, identity_status
from proxy.control.plane import Control
from proxy.control.policy_sources import policy_sources
from proxy.control.remote_fetch import RemoteFetch
from proxy.control.resolving import NameTracer
from proxy.control.svid_source import svid_source
from proxy.control.tracing_setup import are_exports_equal, exporters, sampling_rate
from proxy.deciding.outbound import LOCAL_API
from proxy.engine.selection import choose
from proxy.errors import ConfigError
from proxy.settings.parsing import DAPR_BODY_BYTES
from proxy.settings.values import Settings
from proxy.settings.version import VERSION
from proxy.wire.http_client import request
from proxy.wire.web_client import WebClient
from sentry.client import Svid
from telemetry.context import Sampler
from telemetry.logs import configure, get_logger
from telemetry.tracing import Tracer
from telemetry.web_proxies import WebProxies

_APP_END_S = 10.0  # a supervised app's time to end once we take no calls for it
_LEARNING_S = 10.0  # callees' services are learnt within this; later an unknown one is answered at once
_TICK_S = 1.0
_NO_POLICY = (
    "no access policy: the production profile denies every caller; pass one with --config, "
    "or use --profile dev to admit callers in this namespace"
)
_BLOCK_LOOK_S = 0.1  # between looks at the app's health while the shutdown is blocked


async def run_sidecar(settings: Settings, loading: Loading | None = None) -> int:
    """Run until told to stop; returns the exit code. `loading`: the policies, if their reading was begun.

    Raises ConfigError, ListenError.
    """
    with Lifetime(settings.ready_fd, supervised=settings.run.cli_pid is not None) as lifetime:
        configure(
            settings.app_id,
            socket.gethostname(),
            settings.log_level,
            settings.log_json,
            settings.log_file,
            version=VERSION,
        )
        return await Sidecar(settings, lifetime, loading or Loading(policy_sources(settings))).run()


class Sidecar:
    """All parts of one sidecar. Mutable state: the policies in force and the last error of theirs."""

    def __init__(self, settings: Settings, lifetime: Lifetime, loading: Loading) -> None:
        self._settings = settings
        self._lifetime = lifetime
        self._log = get_logger("postern")
        self._lines = life_lines(settings)
        self._hostname = socket.gethostname()
        self._policy_error: str | None = None
        root, run = settings.runtime_root, settings.runtime_root / "run"
        self._admin_path = run / f"{settings.instance}.sock"
        self._api_path = run / f"{settings.instance}.api"
        max_message, head_bytes = settings.max_body_bytes or DAPR_BODY_BYTES, settings.read_buffer_bytes
        self._dapr_api = DaprApi(run / f"{settings.instance}.rpc", max_message, head_bytes, self._log)
        self._callback = Callback(run / f"{settings.instance}.inv", max_message, self._log)
        try:
            self._policy = loading.finish()
            domain = self._policy.access.own_trust_domain or settings.trust_domain
            has_metrics = self._policy.configuration.metrics.enabled
            self._settings = settings = replace(
                settings,
                trust_domain=domain,
                metrics_port=settings.metrics_port if has_metrics else None,
            )
            self._sources = replace(loading.sources, own_trust_domain=domain, is_trust_domain_given=True)
            self._registry = HostRegistry(root)
            sources = _name_sources(settings, self._policy, self._registry)
            self._host_ip = settings.advertised_host or advertised_address(
                os.environ, settings.peer_listen_address
            )
            self._directory = Directory(sources())
            self._remote = RemoteFetch(WebClient(WebProxies.of(os.environ)))
            self._control = Control(
                *(settings, self._policy, self._directory, self._hostname, self._host_ip),
                want_dapr_api=self._dapr_api.want,
                want_callback=self._callback.want,
                remote=self._remote,
                own_ports=self._own_ports,
            )
            self._names = NameTracer(settings, self._control, self._directory, sources)
        except DocumentError as error:
            raise ConfigError(tuple(str(error).splitlines())) from error
        except (NameResolutionError, ValueError) as error:
            raise ConfigError((str(error),)) from error
        configuration = self._policy.configuration
        self._meters = meters(settings, configuration)
        self._tracer = Tracer(settings.app_id, exporters(configuration.tracing, settings.app_id))
        rate = sampling_rate(configuration.tracing, settings.profile)
        self._hops = HopTracing(Sampler(rate, random.Random()))  # noqa: S311 - ids, no secrets
        self._app = AppWatch(
            settings,
            self._app_changed,
            self._app_pid,
            probed=self._app_probed,
            lines=self._lines,
            configured=self._app_configured,
        )
        self._access_log = access_log(settings, configuration.logging)
        self._reporter = Reporter(
            recorder(settings, configuration, self._meters, self._tracer, self._access_log),
            self._meters,
            get_logger("postern.engine"),
            self._app.doubt,
            api_log=api_log(settings, configuration.logging),
            denied_as=self._control.denied_as,
        )
        chosen = choose(settings.engine, threads=settings.threads, keep_decisions=settings.keep_decisions)
        self._engine_notice = chosen.notice
        self._engine = chosen.make(
            replace(settings.limits, head_bytes=settings.read_buffer_bytes),
            self._reporter,
            self._hops,
            self._control.explain,
        )
        self._listening = Listening(settings, self._engine, self._control)
        self._announcing = Announcing(
            settings,
            self._registry,
            self._directory,
            self._listening,
            self._app,
            host_ip=self._host_ip,
            admin_socket=self._admin_path,
            has_expired=self._has_expired,
        )
        parts = (
            "listeners",
            *(("identity",) if settings.mtls else ()),
            *(("app",) if settings.app_port else ()),
        )
        self._health = Health(parts, self._lost, self._lines.ready)
        self._identity: Identity | None = None
        self._admin = Admin(
            settings,
            self._health,
            self._meters,
            self._tracer,
            engine=self._engine.name,
            report=self._engine.report,
            status=self._status,
            explain=self._not_ready,
            endpoints=self._control.endpoints,
            resolve=self._names.trace,
            decision=Explainer(self._control, self._listening.names_by_port).explain,
            resources=self._resources,
            is_closed=self._control.is_closed,
            shutdown=lifetime.stop,
            abort=self._abort,
        )
        self._meters.on_scrape(self._scrape)
        self._count_resources(self._policy)

    async def run(self) -> int:
        """Serve until asked to stop, then leave in order."""
        self._lines.starting()
        for warning in (*self._settings.warnings, *self._policy.warnings):
            self._log.warning(warning)
        for rule in self._meters.misfits:
            self._log.warning(
                "a rule of spec.metrics.rules has no effect: no metric has that name and label",
                metric=rule.metric,
                label=rule.label,
            )
        if self._policy.access.profile == "production" and self._settings.app_port is not None:
            self._log.warning(_NO_POLICY)
        if self._engine_notice:
            self._log.info(self._engine_notice)
        cut = 0
        async with asyncio.TaskGroup() as tasks:
            engine = tasks.create_task(self._engine.run())
            servers = [LocalHttp(self._admin.api), LocalHttp(self._admin.admin)]
            running = [engine]
            try:
                async with self._open(servers):
                    running.append(tasks.create_task(self._serve()))
                    reason = await self._lifetime.stop_asked()
                    cut = await self._leave(reason)
            finally:
                for task in running:
                    task.cancel()
                self._announcing.close()
        return 1 if cut else 0

    # --- starting ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _open(self, servers: list[LocalHttp]) -> AsyncIterator[None]:
        self._api_path.parent.mkdir(mode=0o700, exist_ok=True)
        settings, name = self._settings, self._hostname
        metrics = LocalHttp(
            guarded(self._admin.metrics, settings, name, settings.metrics_listen_address, scraped=True)
        )
        public = LocalHttp(guarded(self._admin.public, settings, name, settings.public_listen_address))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(server.run()) for server in (*servers, metrics, public)]
            control, listening, translators = self._control, self._listening, self._translators()
            begun = (
                self._dapr_api.start(self._admin, listening.open_invoker, control.dapr_api_started),
                self._callback.start(settings.app_id, listening.open_callback, control.callback_started),
                translators.run(),
            )
            running += [tasks.create_task(work) for work in begun]
            try:
                await servers[0].serve(f"unix:{self._api_path}")
                await servers[1].serve(f"unix:{self._admin_path}")
                self._engine.set_cluster(
                    Cluster(
                        key=LOCAL_API,
                        wire="http1",
                        tls=None,
                        upstreams=(Upstream(address=f"unix:{self._api_path}"),),
                    )
                )
                self._control.attach(self._engine)
                await self._listening.open_translators(translators)
                await self._listening.bind(metrics, public)
                await self._announcing.register()
                self._lifetime.ready(
                    {
                        "ports": self._listening.ports,
                        "adminSocket": str(self._admin_path),
                        "upstreams": self._listening.upstream_ports,
                    }
                )
                self._lines.listening(self._listening.ports, self._engine.name)
                self._health.ready("listeners")
                yield
            finally:
                for task in running:
                    task.cancel()
                self._api_path.unlink(missing_ok=True)
                self._admin_path.unlink(missing_ok=True)

    def _translators(self) -> Translators:
        settings = self._settings
        own = Translating(
            app_id=settings.app_id,
            namespace=settings.namespace,
            speaks_grpc=settings.app_speaks_grpc,
            max_bytes=settings.max_body_bytes or DAPR_BODY_BYTES,
            head_bytes=settings.read_buffer_bytes,
            replay_bytes=settings.replay_bytes,
        )
        return Translators(settings.runtime_root / "run" / settings.instance, own)

    async def _serve(self) -> None:
        """Everything that keeps a listening sidecar useful, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._directory.run())
            tasks.create_task(self._remote.run())
            tasks.create_task(self._control.external.hosts.run())
            tasks.create_task(self._tracer.run())
            tasks.create_task(self._app.run())
            tasks.create_task(self._tick())
            tasks.create_task(self._learn())
            tasks.create_task(
                self._watch_policies() if self._sources.has_files else self._tell_of_nothing_to_reload()
            )
            if self._settings.mtls:
                source = await svid_source(self._settings, self._log)
                name = WorkloadName(
                    app_id=self._settings.sentry_local_identity or self._settings.app_id,
                    namespace=self._settings.namespace,
                    trust_domain=self._settings.trust_domain,
                )
                self._identity = Identity(source, name, observe=self._identity_asked)
                held = asyncio.Event()
                self._identity.subscribe(self._identity_changed)
                self._identity.subscribe(lambda _: held.set())
                tasks.create_task(self._identity.run())
                await held.wait()
            else:
                self._announcing.identify("")
            await self._announcing.keep()

    async def _watch_policies(self) -> None:
        reader = ReaderProcess()
        try:
            await watch(
                self._sources,
                self._policy,
                self._policy_changed,
                self._policy_refused,
                read=reader,
                rest=reader.rest,
                asked=self._lifetime.reload_asked,
            )
        finally:
            reader.close()

    async def _tell_of_nothing_to_reload(self) -> None:
        while await self._lifetime.reload_asked.wait():
            self._lifetime.reload_asked.clear()
            self._log.info("nothing to reload: neither --config nor --resources-path was given")

    def _own_ports(self) -> frozenset[int]:
        return self._listening.all_ports()

    def _has_expired(self) -> bool:
        return self._identity is not None and self._identity.is_expired

    # --- news --------------------------------------------------------------------------------------------------------------

    def _lost(self) -> tuple[str, ...]:
        """The parts that were ready and are not now: peers refuse a certificate that has ended."""
        return ("identity",) if self._has_expired() else ()

    def _abort(self) -> None:
        self._lines.aborting()
        self._lifetime.abort()

    def _identity_asked(self, failed_at: str | None, *, first: bool) -> None:
        meters, app_id = self._meters, self._settings.app_id
        if failed_at is None:
            (meters.mtls_init if first else meters.cert_rotations).add(app_id)
        else:
            (meters.mtls_init_failures if first else meters.cert_rotation_failures).add(app_id, failed_at)

    def _identity_changed(self, svid: Svid) -> None:
        self._control.identity_changed(svid)
        self._announcing.identify(svid.bundle.mesh_hash())
        self._health.ready("identity")

    def _app_changed(self) -> None:
        if self._app.is_open and not self._app.awaits_config:
            self._health.ready("app")
        self._control.app_changed(self._app)
        self._announcing.app_changed()

    def _app_pid(self) -> int | None:
        """The process of the app where it is known, else the command that started it and us; None where the app is started elsewhere."""
        told = self._admin.extended.get("appPID", "")
        if told.isascii() and told.isdigit() and int(told) > 0:
            return int(told)
        run = self._settings.run
        return run.cli_pid if run.command else None

    def _app_probed(self, status: str, took_ms: float) -> None:
        app_id = self._settings.app_id
        if self._settings.app_speaks_grpc:
            self._meters.grpc_probes.add(app_id, status)
            self._meters.grpc_probe_latency.slot(app_id, status).observe(took_ms)
        else:
            self._meters.http_probes.add(app_id, status)
            self._meters.http_probe_latency.slot(app_id, status).observe(took_ms)

    def _app_configured(self, status: str, took_ms: float) -> None:
        meters = self._meters
        labels = (self._settings.app_id, "GET" if meters.options.has_verbs else "", CONFIG_PATH, status)
        meters.http_client_completed.add(*labels)
        meters.http_client_latency.slot(*labels).observe(int(took_ms))

    def _count_resources(self, policy: PolicySnapshot) -> None:
        for name, namespace in policy.resiliency.resources:
            self._meters.resiliency_loaded.add(self._settings.app_id, name, namespace)

    def _policy_changed(self, policy: PolicySnapshot) -> None:
        before = self._policy.configuration
        self._policy, self._policy_error = policy, None
        self._control.policy_changed(policy)
        self._count_resources(policy)
        rate = sampling_rate(policy.configuration.tracing, self._settings.profile)
        self._hops.sampler = Sampler(rate, random.Random())  # noqa: S311 - ids, no secrets
        logging = policy.configuration.logging
        self._reporter.api_log = api_log(self._settings, logging)
        if self._access_log is not None:
            self._access_log.obfuscate = logging.obfuscate_urls
        if not are_exports_equal(before.tracing, policy.configuration.tracing):
            self._exports_changed(policy.configuration.tracing)
        self._log.info("policies reloaded", generation=policy.generation)
        for warning in policy.warnings:
            self._log.warning(warning)
        for section in fixed_sections_changed(before, policy.configuration):
            self._log.warning("section changed: restart to apply it", section=section)

    def _exports_changed(self, tracing: TracingConfig) -> None:
        try:
            self._tracer.replace(exporters(tracing, self._settings.app_id))
        except ConfigError as error:
            self._log.error("exporters not replaced, the old ones stay in force", reason=str(error))

    def _policy_refused(self, error: DocumentError) -> None:
        self._policy_error = str(error)
        self._meters.reload_errors.add()
        self._log.error("policies not reloaded, the old ones stay in force", reason=str(error))

    async def _learn(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._registry.watch(
                    lambda entries: self._control.registry_changed(entries, self._announcing.mesh)
                )
            )
            await asyncio.sleep(_LEARNING_S)
            self._control.learning_settled()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._meters.loop_lag.set(max(0.0, loop.time() - due))
            self._announcing.tick()
            self._health.look()

    # --- leaving -----------------------------------------------------------------------------------------------------------

    async def _leave(self, reason: str) -> int:
        """Returns how many calls were cut."""
        settings = self._settings
        self._lines.leaving(reason)
        self._health.leave()
        if self._lifetime.by_signal and settings.block_shutdown_s:
            await self._block(settings.block_shutdown_s)
        self._dapr_api.leaving.begin()
        await self._announcing.withdraw()
        # Nobody need be served on once the app has ended by itself.
        await self._lifetime.app_ended(self._drain_s())
        within = settings.graceful_shutdown_s
        cut = await self._engine.drain(("peer",), within if within is not None else 3_600.0)
        self._lifetime.drained()
        if self._lifetime.supervised:
            await self._lifetime.app_ended(_APP_END_S)
        cut += await self._engine.drain(self._listening.local, within if within is not None else 3_600.0)
        if cut:
            self._lines.cut(cut, within)
        else:
            self._lines.stopped()
        return cut

    async def _block(self, for_s: float) -> None:
        """Serve on, announced and unready, until the time is over, or the app is unhealthy or has ended."""
        self._lines.delaying(for_s)
        until = asyncio.get_running_loop().time() + for_s
        while self._app.healthy is not False and asyncio.get_running_loop().time() < until:
            if await self._lifetime.app_ended(_BLOCK_LOOK_S):
                return
        self._lines.delayed(healthy=self._app.healthy is not False)

    def _drain_s(self) -> float:
        """How long to serve on after withdrawing. As daprd not at all without calls in flight: its users' scripts wait for the exit."""
        if self._settings.profile == "daprd" and not self._engine.stats().calls_in_flight:
            return 0.0
        return self._settings.drain_s

    # --- what we say of ourselves ------------------------------------------------------------------------------------------

    def _not_ready(self, missing: list[str]) -> list[str]:
        """Why we are not ready, of the parts that are missing and the app."""
        identity = self._identity.status() if self._identity is not None else {}
        return reasons(missing, self._settings, identity, self._app)

    def _resources(self) -> Mapping[str, Sequence[Json | str]]:
        """What documents have put in force, by the keys of Dapr's metadata."""
        policy = self._policy
        return {
            "enabledFeatures": policy.configuration.features,
            "components": [
                {"name": one.name, "type": one.type, "version": one.version}
                for one in policy.pipelines.components
            ],
            "resiliencies": [{"name": name} for name, _ in policy.resiliency.resources],
            "httpEndpoints": [{"name": name} for name in sorted(policy.http_endpoints)],
        }

    def _status(self) -> Json:
        settings, stats = self._settings, self._engine.stats()
        not_ready = self._not_ready([*self._health.missing(but=("app",)), "app"])
        return {
            "appId": settings.app_id,
            "namespace": settings.namespace,
            "instance": settings.instance,
            "pid": os.getpid(),
            "version": VERSION,
            "engine": self._engine.name,
            "engineNotice": self._engine_notice,
            "profile": settings.profile,
            "ready": not not_ready,
            "notReady": not_ready,
            "startedAt": self._announcing.started_at,
            "ports": {**self._listening.ports, "app": settings.app_port},
            "addresses": {"advertised": self._host_ip, "adminSocket": str(self._admin_path)},
            "identity": identity_status(settings, self._identity),
            "app": app_status(
                settings,
                self._app,
                announced=self._announcing.serving and not self._announcing.leaving,
            ),
            "naming": {
                str(found.name): [end.address for end in found.endpoints] for found in self._directory.known()
            },
            "maxRequestBodySize": settings.max_body_bytes or 0,
            "httpReadBufferSize": settings.read_buffer_bytes,
            "policy": {
                "generation": self._policy.generation,
                "files": [str(path) for path in settings.config_paths],
                "warnings": list(self._policy.warnings),
                "lastError": self._policy_error,
            },
            "engineStats": engine_status(stats),
            "exporters": exporters_status(self._tracer.queues, self._policy.configuration.tracing),
            "routes": self._control.routes(),
            "services": self._control.services(),
            "upstreams": self._listening.upstream_ports,
            "shutdown": "draining" if self._announcing.leaving else "serving",
        }

    def _scrape(self) -> None:
        self._meters.policy_generation.set(self._policy.generation)
        stats = self._engine.stats()
        self._meters.calls_in_flight.set(stats.calls_in_flight)
        self._meters.upstream_connections.set(stats.upstream_connections)
        svid = self._identity.current if self._identity is not None else None
        if svid is not None:
            self._meters.cert_expiry.set(svid.not_after.timestamp(), "workload")
        for known in self._directory.known():
            for source in {end.source for end in known.endpoints}:
                count = sum(1 for end in known.endpoints if end.source == source)
                self._meters.resolver_endpoints.set(count, known.name.app_id, source)


def _name_sources(
    settings: Settings, policy: PolicySnapshot, registry: HostRegistry
) -> Callable[[], tuple[Resolver, ...]]:
    """Makes the sources of names that the Configuration asks for."""
    resolution = policy.configuration.name_resolution
    surroundings = Surroundings(
        namespace=settings.namespace,
        registry=registry,
        request=request,
        env=os.environ,
        static_file=_static_file(settings.runtime_root),
        configured_at=policy.configuration.name_resolution_at,
    )
    component = resolution.component if resolution is not None else None
    return partial(build, component, resolution and resolution.configuration, surroundings)


def _static_file(root: Path) -> Path | None:
    """`endpoints.yaml` in the runtime root, if the user wrote one."""
    path = root / "endpoints.yaml"
    return path if path.exists() else None
