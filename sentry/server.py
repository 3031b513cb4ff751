"""The gRPC shell of the authority: listeners, TLS, status codes, health, and shutting down an idle local sentry."""

import asyncio
import importlib
import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from msgspec import Struct

from sentry import metrics
from sentry.attest import Attestor, InsecureValidator, JwksValidator, Kind, TokenMemory, Validator
from sentry.audit import AuditLog
from sentry.authority import Authority, Holdings, StoredBundle, generate
from sentry.ca_pb2 import SignCertificateRequest, SignCertificateResponse
from sentry.config import Settings
from sentry.errors import AttestationError, BundleError, RateLimitError, RequestError, SentryError, StoreError
from sentry.idle import IdleWatch
from sentry.join import jwks, key_stamp
from sentry.jwks import CallSource, KeySet, RefreshRules, source_of
from sentry.key_ledger import KeyLedger
from sentry.listener import OwnLeaf
from sentry.local import LocalPaths, answers, is_any_registered, take_leave
from sentry.pages import Page, address_of, page_tls, serve_page
from sentry.private_files import check_folder, make_folder, overwrite
from sentry.rate import RateLimiter
from sentry.reload import StoreWatch
from sentry.service import ServicePolicy, SigningService
from sentry.store import DiskStore

SERVICE: Final = "dapr.proto.sentry.v1.CA"
_MAX_MESSAGE_BYTES: Final = 64 * 1024
_UPKEEP_S: Final = 600.0
_STORE_POLL_S: Final = 2.0
_WARN_LEFT: Final = timedelta(days=30)
_GRACE_S: Final = 2.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.server_handshake_timeout_ms", 5000),
    ("grpc.max_connection_idle_ms", 60_000),
)
_FAILED: Final = "failed to sign certificate"
_LOG: Final = logging.getLogger("sentry")


class Started(Struct, frozen=True, kw_only=True):
    """What a server that answers tells its starter."""

    addresses: tuple[str, ...]
    sentry_id: str
    healthz: str = ""
    metrics: str = ""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class SentryServer:
    """Composes the authority of one store and serves it until stopped or idle. Owns the store's lock meanwhile."""

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Nothing happens before `serve`."""
        self._settings = settings
        self._clock = clock
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End `serve` (call it on the loop's thread)."""
        self._stop.set()

    async def serve(self, on_started: Callable[[Started], None]) -> None:
        """Run until `stop`, or until idle. Raises SentryError when it can't start."""
        settings = self._settings
        if settings.runtime_path is not None:
            make_folder(settings.runtime_path / "sentry")
            check_folder(settings.runtime_path / "sentry")
            jwks(settings.runtime_path)  # a join key open to others ends the start, not the first request
        # A local sentry may have to wait for its predecessor, which is just finishing its last answers.
        wait_s = 2 * _GRACE_S if settings.exit_when_idle_s else 0.0
        loose = settings.allow_loose_store
        with DiskStore(settings.store, names=settings.names, allow_loose=loose, wait_s=wait_s) as store:
            audit = AuditLog(settings.audit_log, self._clock)
            try:
                authority = self._authority(store, audit)
                watch = StoreWatch(authority, store.load, audit, self._clock)
                await self._serve(authority, watch, audit, on_started)
            finally:
                audit.close()

    async def _serve(
        self, authority: Authority, store: StoreWatch, audit: AuditLog, on_started: Callable[[Started], None]
    ) -> None:
        limiter = RateLimiter(time.monotonic)
        policy = ServicePolicy(strict_csr=self._settings.strict_csr)
        keys = KeyLedger(time.monotonic)
        service = SigningService(
            authority, self._attestor(), audit, limiter=limiter, policy=policy, keys=keys
        )
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=64)
        server.add_generic_rpc_handlers((_handlers(service),))
        addresses = self._bind(server, lambda: OwnLeaf(authority, self._clock).credentials())
        await server.start()
        health = await self._start_health(authority)
        scraped = await self._start_metrics(service, authority)
        try:
            if self._settings.runtime_path is not None:
                overwrite(LocalPaths(root=self._settings.runtime_path).pid, f"{os.getpid()}\n".encode())
            on_started(
                Started(
                    addresses=addresses,
                    sentry_id=str(authority.spiffe_id),
                    healthz=address_of(health),
                    metrics=address_of(scraped),
                )
            )
            async with asyncio.TaskGroup() as tasks:
                upkeep = tasks.create_task(self._upkeep(authority))
                idle = tasks.create_task(self._watch_idle(service))
                changes = tasks.create_task(_watch_store(store))
                await self._stop.wait()
                for task in (upkeep, idle, changes):
                    task.cancel()
        finally:
            for listener in (health, scraped):
                if listener is not None:
                    listener.close()
            await server.stop(_GRACE_S)

    def _authority(self, store: DiskStore, audit: AuditLog) -> Authority:
        settings = self._settings
        now = self._clock()
        stored = store.load()
        if stored is None:
            _LOG.info("the store %s is empty: making a new root and issuer", settings.store)
            holdings = generate(settings.spiffe_id.trust_domain, settings.spiffe_id.namespace, now)
            store.save(holdings.stored())
            audit.write("authority-generated", {"mesh": holdings.bundle.mesh_hash()})
        else:
            try:
                holdings = Holdings.parse(stored, now)
            except BundleError as error:
                raise StoreError(str(settings.store), str(error)) from error

        def save(bundle: StoredBundle) -> None:
            store.save(bundle)
            audit.write("issuer-renewed", {"store": str(settings.store)})

        authority = Authority(
            holdings, spiffe_id=settings.spiffe_id, terms=settings.terms, clock=self._clock, save=save
        )
        authority.renew_issuer()
        return authority

    def _attestor(self) -> Attestor:
        settings = self._settings
        validators: dict[Kind, Validator] = {}
        memory = TokenMemory(time.time)
        sets = []
        if (root := settings.runtime_path) is not None:
            own = CallSource(name="join key", call=lambda: jwks(root))
            sets.append(KeySet(own, clock=time.monotonic, stamp=lambda: key_stamp(root)))
        for source in settings.token_sources:
            read = source_of(
                source.source, ca=source.ca, timeout_s=source.timeout_s, proxies=settings.web_proxies
            )
            rules = RefreshRules(max_age_s=source.refresh_s, min_interval_s=5.0)
            sets.append(
                KeySet(
                    read,
                    clock=time.monotonic,
                    rules=rules,
                    max_token_lifetime_s=source.max_token_lifetime_s,
                    grants_control_plane=source.grants_control_plane,
                )
            )
        if sets:
            validators[Kind.JWKS] = JwksValidator(sets, str(settings.spiffe_id), memory, time.time)
        if settings.is_insecure:
            _LOG.warning("INSECURE: this sentry signs any identity for anyone who can reach it")
            validators[Kind.INSECURE] = InsecureValidator()
        return Attestor(validators, Kind.JWKS if sets else Kind.INSECURE)

    def _bind(
        self, server: grpc.aio.Server, credentials: Callable[[], grpc.ServerCredentials]
    ) -> tuple[str, ...]:
        # Credentials of its own for each listener: each keeps account of the certificate that it was given last.
        addresses = []
        settings = self._settings
        if settings.port is not None:
            host = settings.listen_address or "[::]"
            host = f"[{host}]" if ":" in host and not host.startswith("[") else host
            try:
                port = server.add_secure_port(f"{host}:{settings.port}", credentials())
            except RuntimeError as error:
                raise StoreError(
                    f"{host}:{settings.port}", "can't be listened on: is the port taken?"
                ) from error
            addresses.append(f"{host}:{port}")
        if settings.unix_socket is not None:
            addresses.append(_bind_unix(server, settings.unix_socket, credentials()))
        return tuple(addresses)

    async def _start_health(self, authority: Authority) -> asyncio.Server | None:
        if not self._settings.healthz_port:
            return None

        def answer() -> Page:
            is_usable = self._clock() < authority.issuer.not_after
            return Page("200 OK" if is_usable else "503 Service Unavailable")

        return await serve_page(
            self._settings.healthz_address,
            self._settings.healthz_port,
            "/healthz",
            answer,
            hosts=self._settings.allowed_hosts,
        )

    async def _start_metrics(self, service: SigningService, authority: Authority) -> asyncio.Server | None:
        port = self._settings.metrics_port
        if port is None:
            return None

        def answer() -> Page:
            return Page("200 OK", metrics.CONTENT_TYPE, metrics.render(service, authority))

        return await serve_page(
            *(self._settings.metrics_address, port, "/metrics", answer),
            hosts=self._settings.allowed_hosts,
            tls=page_tls(self._settings.metrics_tls),
        )

    async def _upkeep(self, authority: Authority) -> None:
        """Renew the issuer in time, warn of what ends soon."""
        # The first token needs it; loaded here, it delays neither the start nor the first answer by its 50 ms.
        await asyncio.to_thread(importlib.import_module, "jwt")
        while True:
            try:
                if await asyncio.to_thread(authority.renew_issuer):
                    _LOG.info(
                        "the issuer's certificate was renewed, it ends at %s", authority.issuer.not_after
                    )
            except SentryError as error:
                _LOG.error("the issuer can't be renewed: %s", error)
            now = self._clock()
            for what, end in (("issuer", authority.issuer.not_after), ("root", authority.bundle.not_after)):
                if end - now < _WARN_LEFT:
                    _LOG.warning("the %s's certificate ends at %s", what, end)
            await asyncio.sleep(_UPKEEP_S)

    async def _watch_idle(self, service: SigningService) -> None:
        settings = self._settings
        root = settings.runtime_path
        if not settings.exit_when_idle_s or root is None:
            return
        paths = LocalPaths(root=root)
        watch = IdleWatch(
            settings.exit_when_idle_s,
            clock=time.monotonic,
            is_registered=lambda: is_any_registered(root),
            mark=lambda: (service.signed_count, _changed_at(paths.wanted)),
        )
        while True:
            await asyncio.sleep(min(1.0, settings.exit_when_idle_s / 4))
            if not watch.is_over() or (lock := take_leave(paths.start_lock)) is None:
                continue
            # Looked at again under the lock: nobody can have found this sentry since. The lock is kept for good.
            if watch.is_over():
                _LOG.info("no sidecar for %.0f s: shutting down", settings.exit_when_idle_s)
                paths.socket.unlink(missing_ok=True)
                self.stop()
                return
            os.close(lock)


async def _watch_store(store: StoreWatch) -> None:
    # By looking, not by file events: these miss network and mapped volumes, and four small reads cost 0.1 ms.
    while True:
        await asyncio.sleep(_STORE_POLL_S)
        await asyncio.to_thread(store.look)


def _handlers(service: SigningService) -> "grpc.GenericRpcHandler[Any, Any]":
    async def sign(
        request: SignCertificateRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> SignCertificateResponse:
        try:
            return await service.answer(request, context.peer())
        except SentryError as error:
            code = status_of(error)
            _LOG.log(
                logging.ERROR if code is grpc.StatusCode.INTERNAL else logging.INFO,
                "refused %s/%s: %s",
                request.namespace[:256],
                request.id[:256],
                error,
            )
            await context.abort(
                code, str(error) if code is not grpc.StatusCode.INTERNAL else "failed to sign"
            )
            raise

    method = grpc.unary_unary_rpc_method_handler(
        sign,
        request_deserializer=SignCertificateRequest.FromString,
        response_serializer=SignCertificateResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(SERVICE, {"SignCertificate": method})


def status_of(error: SentryError) -> grpc.StatusCode:
    """The one table from our errors to gRPC's codes."""
    if isinstance(error, RequestError):
        return grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, AttestationError):
        return grpc.StatusCode.PERMISSION_DENIED
    if isinstance(error, RateLimitError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return grpc.StatusCode.INTERNAL


def _bind_unix(server: grpc.aio.Server, path: Path, credentials: grpc.ServerCredentials) -> str:
    if answers(path):
        raise StoreError(str(path), "is in use by another process")
    path.unlink(missing_ok=True)
    try:
        server.add_secure_port(f"unix:{path}", credentials)
    except RuntimeError as error:
        raise StoreError(str(path), "can't be listened on: does its folder exist, is it too long?") from error
    path.chmod(0o600)
    return f"unix:{path}"


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def announce(descriptor: int, started: Started) -> None:
    """Tell the starter through `--ready-fd`, in one JSON line, and close it."""
    facts = {
        "addresses": started.addresses,
        "sentry_id": started.sentry_id,
        "healthz": started.healthz,
        "metrics": started.metrics,
    }
    with os.fdopen(descriptor, "wb") as pipe:
        pipe.write(json.dumps(facts).encode() + b"\n")
