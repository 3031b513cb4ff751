"""Which sources of names are in force: those that the Configuration asks for, made anew when it asks for others."""

import os
from collections.abc import Callable
from pathlib import Path

from nameresolution.directory import Directory
from nameresolution.errors import NameResolutionError
from nameresolution.host_registry import HostRegistry
from nameresolution.resolver import Resolver
from nameresolution.resolvers import Surroundings, build
from policies.rules.configuration import ConfigurationValues
from proxy.settings.values import Settings
from proxy.wire.http_client import request
from telemetry.logs import get_logger


class NameSources:
    """Mutable state: the part of the Configuration that they are made from. named: told of the component in force, "" for the default."""

    def __init__(
        self, settings: Settings, configuration: ConfigurationValues, named: Callable[[str], None]
    ) -> None:
        self.registry = HostRegistry(settings.runtime_root)
        self._settings = settings
        self._in_force = configuration
        self._named = named
        self._log = get_logger("postern")

    def make(self) -> tuple[Resolver, ...]:
        """New ones of those in force. Raises: NameResolutionError."""
        return self._made(self._in_force)

    def change(self, configuration: ConfigurationValues, directory: Directory) -> None:
        """Have the directory go by the sources that these values ask for; any that can't be made change nothing."""
        if configuration.name_resolution == self._in_force.name_resolution:
            return
        try:
            made = self._made(configuration)
        except (NameResolutionError, ValueError) as error:
            self._log.error("name resolution not changed, the old one stays in force", reason=str(error))
            return
        self._in_force = configuration
        directory.replace(made)
        sources = ", ".join(resolver.source for resolver in made)
        self._log.info("name resolution changed", sources=sources)
        self.tell()

    def tell(self) -> None:
        """Say which component is in force."""
        resolution = self._in_force.name_resolution
        self._named(resolution.component if resolution is not None else "")

    def _made(self, configuration: ConfigurationValues) -> tuple[Resolver, ...]:
        resolution = configuration.name_resolution
        surroundings = Surroundings(
            namespace=self._settings.namespace,
            registry=self.registry,
            request=request,
            env=os.environ,
            static_file=_static_file(self._settings.runtime_root),
            configured_at=configuration.name_resolution_at,
        )
        component = resolution.component if resolution is not None else None
        return build(component, resolution and resolution.configuration, surroundings)


def _static_file(root: Path) -> Path | None:
    """`endpoints.yaml` in the runtime root, if the user wrote one."""
    path = root / "endpoints.yaml"
    return path if path.exists() else None
