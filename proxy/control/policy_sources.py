"""Which policy documents a sidecar reads, from its settings. Light to import: their reading begins before the rest of the sidecar loads."""

import os

from policies.reloading.loading import PolicySources
from proxy.settings.values import Settings

# What a daprd sets before it reads a Configuration, and we know only once we listen: left as it is written, for name resolution to fill in.
_LATER = ("HOST_ADDRESS", "DAPR_PORT", "DAPR_HTTP_PORT", "DAPR_GRPC_PORT", "DAPR_METRICS_PORT")


def policy_sources(settings: Settings) -> PolicySources:
    """The files and what their meaning depends on."""
    return PolicySources(
        config_paths=settings.config_paths,
        resources_paths=settings.resources_paths,
        own_app_id=settings.app_id,
        own_namespace=settings.namespace,
        app_protocol=settings.app_protocol,
        profile=settings.profile,
        mtls=settings.mtls,
        lenient=settings.config_lenient,
        access_policy_mode=settings.access_policy_mode,
        env=_variables(settings) | dict(os.environ),
        own_trust_domain=settings.trust_domain,
        is_trust_domain_given=settings.trust_domain_given,
        injects_faults=settings.injects_faults,
    )


def _variables(settings: Settings) -> dict[str, str]:
    """Those that a Configuration may name without their being set."""
    return {
        "APP_ID": settings.app_id,
        "APP_PORT": str(settings.app_port or ""),
        "DAPR_PROFILE_PORT": "",  # there is none
        **{name: f"${{{name}}}" for name in _LATER},
    }
