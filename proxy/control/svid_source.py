"""Where this sidecar's SVIDs come from: the local sentry, started if none is running, or the one that was configured."""

import asyncio

from proxy.errors import ConfigError
from proxy.settings.values import Settings
from sentry.bundle import TrustBundle
from sentry.client import SvidClient, TokenSource, file_token, no_token
from sentry.errors import BundleError, LocalSentryError
from sentry.spiffe import SpiffeId
from telemetry.client_meters import RpcEnded
from telemetry.logs import Logger


async def svid_source(settings: Settings, log: Logger, told: RpcEnded | None) -> SvidClient:
    """The client for this sidecar's sentry; `told`: of each call. Raises ConfigError where the trust anchors can't be read."""
    if settings.sentry_address is None:
        return await _local(settings, log, told)
    if settings.trust_anchors_pem is None:
        raise ConfigError(
            ("DAPR_TRUST_ANCHORS is missing: with --sentry-address it must hold the mesh's roots in PEM",)
        )
    try:
        anchors = TrustBundle.parse(settings.trust_anchors_pem)
    except BundleError as error:
        raise ConfigError((f"DAPR_TRUST_ANCHORS: {error}",)) from error
    sentry = SpiffeId(
        trust_domain=settings.control_plane_trust_domain,
        namespace=settings.control_plane_namespace,
        app_id="dapr-sentry",
    )
    token: TokenSource = no_token()
    if settings.sentry_token_file is not None:
        token = file_token(settings.sentry_token_file)
    return SvidClient(settings.sentry_address, anchors, sentry, token, told=told)


async def _local(settings: Settings, log: Logger, told: RpcEnded | None) -> SvidClient:
    from sentry.client import join_token  # noqa: PLC0415
    from sentry.local import LocalSentry, ensure_local_sentry  # noqa: PLC0415

    def ensure() -> LocalSentry:
        return ensure_local_sentry(
            settings.runtime_root,
            trust_domain=settings.control_plane_trust_domain,
            namespace=settings.control_plane_namespace,
        )

    delay_s = 1.0
    local: LocalSentry | None = None
    while local is None:
        try:
            local = await asyncio.to_thread(ensure)
        except LocalSentryError as error:
            log.warning(
                "the local sentry can't be started, trying again", reason=str(error), again_in_s=delay_s
            )
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 60.0)
    if local.was_started:
        log.info("started a local sentry", address=local.address)

    async def prepare() -> None:
        try:
            await asyncio.to_thread(ensure)
        except LocalSentryError as error:
            log.warning("the local sentry can't be started", reason=str(error))

    return SvidClient(
        local.address,
        local.anchors,
        local.sentry_id,
        join_token(settings.runtime_root, local.sentry_id),
        prepare=prepare,
        told=told,
    )
