"""Which policy documents a sidecar reads, from its settings. Light to import: their reading begins before the rest of the sidecar loads."""

import os

from policies.reloading.loading import PolicySources
from proxy.settings.values import Settings


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
        env=dict(os.environ),
        own_trust_domain=settings.trust_domain,
        is_trust_domain_given=settings.trust_domain_given,
    )
