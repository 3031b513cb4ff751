"""Why a sidecar is not ready, for people: what is missing, where it was looked for, and what to do about it. Pure."""

from collections.abc import Mapping, Sequence

from proxy.contract.addresses import join_address
from proxy.control.app_watch import AppWatch
from proxy.settings.values import Settings

Facts = Mapping[str, str | int | float | None]


def reasons(missing: Sequence[str], settings: Settings, identity: Facts, app: AppWatch) -> list[str]:
    """A line for each part that is missing, as `part: why; what to do`; of "app" only while it takes no calls.

    `identity`: what `Identity.status` says, empty before there is one.
    """
    why = {part: _app(settings, app) if part == "app" else _why(part, settings, identity) for part in missing}
    return [f"{part}: {told}" for part, told in why.items() if told]


def _why(part: str, settings: Settings, identity: Facts) -> str:
    match part:
        case "listeners":
            return "its ports are not bound yet"
        case "leaving":
            return "it is shutting down"
        case "identity":
            sentry = f"sentry at {settings.sentry_address}" if settings.sentry_address else "the local sentry"
            state = (
                "its certificate has expired and"
                if identity.get("state") == "expired"
                else "it has no certificate, as"
            )
            why = identity.get("last_error") or "has not answered yet"
            return f"{state} {sentry} issued none: {why}; is sentry running, and does it know this workload?"
        case _:
            return "not yet"


def _app(settings: Settings, app: AppWatch) -> str:
    """Why the app accepts no calls; empty if it does, or there is no app."""
    if settings.app_port is None:
        return ""
    where = join_address(settings.app_channel_address, settings.app_port)
    if app.state == "starting":
        return f"nothing listens on {where} yet; start the app there, or set --app-port"
    if app.state == "down":
        return f"nothing listens on {where} any more; has the app ended?"
    if app.mismatch:
        return f"{where} {app.mismatch}, and --app-protocol is {settings.app_protocol}; set --app-protocol to what the app speaks"
    if app.state == "unhealthy":
        check = settings.app_health.path if settings.app_health is not None else ""
        if settings.app_speaks_grpc:
            return (
                f"its health check, a gRPC call of dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck, fails at {where}; "
                "does the app serve it? its own log may say why"
            )
        return f"its health check fails at {where}{check}; the app's own log may say why"
    if app.awaits_config:
        return (
            f"it has not answered GET {where}/dapr/config yet; --disable-init-endpoints config starts without"
        )
    return ""
