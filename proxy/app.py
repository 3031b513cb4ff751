"""Composition root of one sidecar: the one module that constructs everything; owns the outer TaskGroup.

Life cycle: bind, report the ports, get an identity, announce, serve; then turn unready, withdraw, serve on for `drain`, send GOAWAY, finish
what is in flight, let the app end, keep outbound open until it has.
"""

import asyncio
import os
import random
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from nameresolution.addresses import advertised_address
from nameresolution.directory import Directory
from nameresolution.errors import NameResolutionError
from policies.errors import DocumentError
from policies.reloading.reader_process import Loading
from proxy.api.admin import Admin, Health
from proxy.api.dapr.starting import Callback, DaprApi
from proxy.api.daprd.server import Translating, Translators
from proxy.api.log_level import LogLevel
from proxy.api.otlp.server import OtlpServer
from proxy.api.server import LocalHttp
from proxy.contract.engine import Cluster, Upstream
from proxy.control.announcing import Announcing
from proxy.control.app_watch import CONFIG_PATH, AppWatch
from proxy.control.breakers import BreakerNews
from proxy.control.description import Description
from proxy.control.ejections import Ejections
from proxy.control.explaining import Explainer
from proxy.control.hedge_delays import HedgeDelays
from proxy.control.identity import Identity, WorkloadName
from proxy.control.life_lines import life_lines
from proxy.control.lifetime import Lifetime
from proxy.control.listening import Listening, guarded
from proxy.control.log_outputs import LogOutputs
from proxy.control.metrics_access import metrics_tls, with_token
from proxy.control.metrics_port import MetricsPort
from proxy.control.metrics_setup import (
    MetricShapes,
    api_log,
    meters,
    recorder,
    taps,
    warn_of_misfits,
)
from proxy.control.name_sources import NameSources
from proxy.control.observer import Reporter
from proxy.control.plane import Control
from proxy.control.policy_sources import policy_sources
from proxy.control.refused_calls import RefusedCalls
from proxy.control.reloads import Reloads
from proxy.control.remote_fetch import RemoteFetch
from proxy.control.resolving import NameTracer
from proxy.control.shutdown import Shutdown
from proxy.control.svid_source import svid_source
from proxy.control.tracing_setup import INSTANCE_HEADER, hop_tracing, pusher, tracer
from proxy.deciding.outbound import LOCAL_API, OWN_API
from proxy.engine.selection import choose
from proxy.errors import ConfigError
from proxy.settings.parsing import DAPR_BODY_BYTES
from proxy.settings.values import Settings
from proxy.settings.version import VERSION
from proxy.wire.web_client import WebClient
from sentry.client import Svid
from telemetry.client_meters import RpcEnded
from telemetry.garbage import timed_collections
from telemetry.log_ring import LogRing
from telemetry.logs import configure, get_logger
from telemetry.web_proxies import WebProxies

_LEARNING_S = 10.0  # callees' services are learnt within this; later an unknown one is answered at once
_TICK_S = 1.0
_LAG_S = 15.0  # a usual interval between scrapes: none misses the worst
_NO_POLICY = (
    "no access policy: the production profile denies every caller; pass one with --config or --resources-path, "
    "or use --profile dev to admit callers in this namespace"
)


async def run_sidecar(settings: Settings, loading: Loading | None = None) -> int:
    """Run until told to stop; returns the exit code. `loading`: the policies, if their reading was begun.

    Raises ConfigError, ListenError.
    """
    ring = LogRing()
    with Lifetime(settings.ready_fd, supervised=settings.run.cli_pid is not None) as lifetime:
        configure(
            settings.app_id,
            socket.gethostname(),
            settings.log_level,
            settings.log_json,
            settings.log_file,
            version=VERSION,
            ring=ring,
        )
        return await Sidecar(settings, lifetime, loading or Loading(policy_sources(settings)), ring).run()


class Sidecar:
    """All parts of one sidecar. Mutable state: the identity, once it is asked for."""

    def __init__(
        self, settings: Settings, lifetime: Lifetime, loading: Loading, ring: LogRing | None = None
    ) -> None:
        self._settings = settings
        self._lifetime = lifetime
        self._log = get_logger("postern")
        self._lines = life_lines(settings)
        self._hostname = socket.gethostname()
        run = settings.runtime_root / "run"
        self._admin_path = run / f"{settings.instance}.sock"
        self._api_path = run / f"{settings.instance}.api"
        max_message, head_bytes = settings.max_body_bytes or DAPR_BODY_BYTES, settings.read_buffer_bytes
        self._dapr_api = DaprApi(run / f"{settings.instance}.rpc", max_message, head_bytes, self._log)
        self._callback = Callback(run / f"{settings.instance}.inv", max_message, self._log)
        try:
            policy = loading.finish()
            domain = policy.access.own_trust_domain or settings.trust_domain
            self._settings = settings = replace(settings, trust_domain=domain)
            self._sources = replace(loading.sources, own_trust_domain=domain, is_trust_domain_given=True)
            self._name_sources = NameSources(settings, policy.configuration, self._lines.naming)
            self._host_ip = settings.advertised_host or advertised_address(
                os.environ, settings.peer_listen_address
            )
            self._directory = Directory(self._name_sources.make())
            self._remote = RemoteFetch(WebClient(WebProxies.of(os.environ)))
            self._control = Control(
                *(settings, policy, self._directory, self._hostname, self._host_ip),
                want_dapr_api=self._dapr_api.want,
                want_callback=self._callback.want,
                remote=self._remote,
                own_ports=self._own_ports,
                web_proxies=WebProxies.of(os.environ),
            )
            self._names = NameTracer(settings, self._control, self._directory, self._name_sources.make)
        except DocumentError as error:
            raise ConfigError(tuple(str(error).splitlines())) from error
        except (NameResolutionError, ValueError) as error:
            raise ConfigError((str(error),)) from error
        configuration = policy.configuration
        self._meters = meters(settings, configuration)
        self._hedge_delays = HedgeDelays(self._meters.recent, self._control.hedge_delays_changed)
        self._tracer, self._relays = tracer(configuration.tracing, settings, self._meters)
        hops = hop_tracing(configuration.tracing, settings, random.Random())  # noqa: S311 - ids, no secrets
        self._app = AppWatch(
            settings,
            self._app_changed,
            self._app_pid,
            probed=self._app_probed,
            lines=self._lines,
            configured=self._app_configured,
        )
        chosen = choose(settings.engine, threads=settings.threads, keep_decisions=settings.keep_decisions)
        self._logs = LogOutputs(settings, configuration, self._meters)
        self._taps = taps(settings, configuration.logging, self._meters)
        ejections = Ejections(self._control.loads, self._meters, get_logger("postern.engine"))
        reporter = Reporter(
            recorder(settings, configuration, self._meters, self._tracer),
            self._meters,
            get_logger("postern.engine"),
            self._app.doubt,
            api_log=api_log(settings, configuration.logging),
            taps=self._taps,
            lines=self._logs.lines,
            writes_lines=not chosen.writes_lines,
            hides_paths=configuration.logging.obfuscate_urls,
            denied_as=self._control.denied_as,
            breakers=BreakerNews(
                lambda: self._reloads.policy.resiliency, self._meters, get_logger("postern.engine")
            ),
            ejections=ejections,
        )
        self._engine_notice, self._refused_calls = (
            chosen.notice,
            RefusedCalls(hops, reporter.recorder, get_logger("postern.engine")),
        )
        self._engine = chosen.make(
            replace(settings.limits, head_bytes=settings.read_buffer_bytes),
            reporter,
            hops,
            self._control.explain,
        )
        self._listening = Listening(
            settings, self._engine, self._control, has_metrics=configuration.metrics.enabled
        )
        self._announcing = Announcing(
            settings,
            self._name_sources.registry,
            self._directory,
            self._listening,
            self._app,
            host_ip=self._host_ip,
            admin_socket=self._admin_path,
            has_expired=self._has_expired,
        )
        self._reloads = Reloads(
            *(settings, policy, self._control),
            meters=self._meters,
            tracer=self._tracer,
            relays=self._relays,
            hops=hops,
            reporter=reporter,
            taps=self._taps,
            shapes=MetricShapes(settings, configuration.metrics, self._meters, reporter.recorder),
            logs=self._logs,
            metrics_port=MetricsPort(self._listening, self._announcing.moved),
            names=self._name_sources,
            directory=self._directory,
        )
        parts = (
            "listeners",
            *(("identity",) if settings.mtls else ()),
            *(("app",) if settings.app_port else ()),
        )
        self._health = Health(parts, self._lost, self._lines.ready)
        self._identity: Identity | None = None
        description = Description(
            settings=settings,
            engine=self._engine,
            engine_notice=chosen.notice,
            control=self._control,
            directory=self._directory,
            listening=self._listening,
            announcing=self._announcing,
            app=self._app,
            health=self._health,
            reloads=self._reloads,
            ejections=ejections,
            meters=self._meters,
            method_label=reporter.breaker_label,
            tracer=self._tracer,
            relays=self._relays,
            logs=self._logs,
            identity=lambda: self._identity,
            host_ip=self._host_ip,
            admin_socket=self._admin_path,
        )
        self._admin = Admin(
            settings,
            self._health,
            self._meters,
            self._tracer,
            engine=self._engine.name,
            report=self._engine.report,
            status=description.status,
            dump=description.dump,
            compared=self._reloads.compared,
            reload=self._reloads.reload,
            explain=description.not_ready,
            endpoints=self._control.naming.endpoints,
            listening=lambda: {name: port for name, port in self._listening.ports.items() if port},
            resolve=self._names.trace,
            decision=Explainer(self._control, self._listening.names_by_port, lambda: hops.is_b3_read).explain,
            resources=description.resources,
            tap=self._taps.opener(self._engine.watch, self._control.secret_headers),
            log_ring=ring or LogRing(),
            log_level=LogLevel(settings.log_level),
            is_closed=self._control.is_closed,
            shutdown=lifetime.stop,
            abort=self._abort,
        )
        self._meters.on_scrape(description.scrape)
        self._shutdown = Shutdown(
            settings=settings,
            lifetime=lifetime,
            lines=self._lines,
            health=self._health,
            announcing=self._announcing,
            app=self._app,
            engine=self._engine,
            listening=self._listening,
            end_streams=self._dapr_api.leaving.begin,
        )

    async def run(self) -> int:
        """Serve until asked to stop, then leave in order."""
        self._lines.starting()
        self._name_sources.tell()
        self._lines.loaded(self._reloads.policy)
        policy = self._reloads.policy
        for warning in (*self._settings.warnings, *policy.warnings):
            self._log.warning(warning)
        warn_of_misfits(self._meters)
        is_ruled = policy.access.profile != "production" or policy.access.policies.enforced is not None
        if not is_ruled and self._settings.app_port is not None:
            self._log.warning(_NO_POLICY)
        if self._engine_notice:
            self._log.info(self._engine_notice)
        with timed_collections(self._meters.gc_pauses.slot()):
            return await self._carry()

    async def _carry(self) -> int:
        cut = 0
        async with asyncio.TaskGroup() as tasks:
            engine = tasks.create_task(self._engine.run())
            servers = [LocalHttp(self._admin.api), LocalHttp(self._admin.admin)]
            running = [engine, tasks.create_task(self._logs.run())]
            try:
                async with self._open(servers):
                    running.append(tasks.create_task(self._serve()))
                    reason = await self._lifetime.stop_asked()
                    cut = await self._shutdown.leave(reason)
            finally:
                for task in running:
                    task.cancel()
                self._announcing.close()
        await self._logs.close()
        return 1 if cut else 0

    # --- starting ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _open(self, servers: list[LocalHttp]) -> AsyncIterator[None]:
        self._api_path.parent.mkdir(mode=0o700, exist_ok=True)
        settings, name = self._settings, self._hostname
        scrapes = with_token(self._admin.metrics, settings)
        metrics = LocalHttp(
            guarded(scrapes, settings, name, settings.metrics_listen_address, scraped=True),
            tls=metrics_tls(settings),
        )
        public = LocalHttp(guarded(self._admin.public, settings, name, settings.public_listen_address))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(server.run()) for server in (*servers, metrics, public)]
            control, listening = self._control, self._listening
            translators, otlp = self._translators(), self._otlp_server()
            begun = (
                self._dapr_api.start(
                    *(self._admin, listening.open_invoker, control.dapr_api_started), self._refused_calls
                ),
                self._callback.start(
                    settings.app_id, listening.open_callback, control.callback_started, self._rpc_ended()
                ),
                translators.run(),
                otlp.run(),
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
                        who=OWN_API,
                    )
                )
                self._control.attach(self._engine)
                await self._listening.open_translators(translators)
                await self._listening.open_otlp(otlp)
                await self._listening.bind(metrics, public)
                self._reloads.listening(self._own_ports())
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

    def _otlp_server(self) -> OtlpServer:
        settings = self._settings
        return OtlpServer(
            settings.runtime_root / "run" / f"{settings.instance}.otlp",
            self._tracer,
            self._relays,
            get_logger("postern.trace"),
            self._meters.exports.app_spans,
            own_mark=(INSTANCE_HEADER.encode(), settings.instance.encode()),
        )

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
            tasks.create_task(self._control.authorizers.run(self._meters.asked))
            tasks.create_task(self._control.external.hosts.run())
            tasks.create_task(self._tracer.run(self._engine.recall))
            tasks.create_task(self._relays.run())
            pushing = pusher(self._settings, self._meters, self._engine.report)
            if pushing is not None:
                tasks.create_task(pushing.run())
            tasks.create_task(self._app.run())
            tasks.create_task(self._tick())
            tasks.create_task(self._learn())
            tasks.create_task(self._reloads.run(self._sources, self._lifetime.reload_asked))
            if self._settings.mtls:
                self._lines.fetching_identity()
                source = await svid_source(self._settings, self._log, self._rpc_ended())
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

    def _rpc_ended(self) -> RpcEnded | None:
        """Counts our own gRPC calls, as daprd does."""
        return self._meters.grpc_client.ended if self._settings.profile == "daprd" else None

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
            if self._identity is not None and (svid := self._identity.current) is not None:
                self._lines.identified(svid.not_after, is_first=first)
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

    async def _learn(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._name_sources.registry.watch(
                    lambda entries: self._control.registry_changed(entries, self._announcing.mesh)
                )
            )
            await asyncio.sleep(_LEARNING_S)
            self._control.learning_settled()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        lags = deque((0.0,), maxlen=round(_LAG_S / _TICK_S))
        while True:
            due = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            lags.append(max(0.0, loop.time() - due))
            self._meters.loop_lag.set(max(lags))
            self._meters.recent.look()
            self._hedge_delays.look(self._control.outbound.view.traffic, loop.time())
            self._announcing.tick()
            self._health.look()
