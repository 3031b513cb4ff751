"""Which resolvers a sidecar uses: the component's name to its constructor, and the chain used when none is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from nameresolution.errors import ComponentConfigurationError, UnknownComponentError
from nameresolution.host_registry import HostRegistry
from nameresolution.interfaces import InterfaceFilter
from nameresolution.mdns.resolver import MdnsResolver
from nameresolution.registry_resolver import RegistryResolver
from nameresolution.resolver import Resolver

Configuration = Mapping[str, object]

PLANNED = ("kubernetes", "consul", "hashicorp.consul", "sqlite", "nameformat", "aws.cloudmap")


class Surroundings(Struct, frozen=True, kw_only=True):
    """What constructors need beside their configuration. `static_file` is the file of the default chain, if any."""

    namespace: str
    registry: HostRegistry
    static_file: Path | None = None


def build(
    component: str | None, configuration: Configuration, surroundings: Surroundings
) -> tuple[Resolver, ...]:
    """The resolvers in order of precedence: those of the named component alone, else the default chain.

    Raises: UnknownComponentError, ComponentConfigurationError, StaticFileError.
    """
    if component:
        name = component.lower()
        constructor = CONSTRUCTORS.get(name)
        if constructor is None:
            raise UnknownComponentError(component, CONSTRUCTORS, PLANNED if name in PLANNED else ())
        return (constructor(configuration, surroundings),)
    chain: tuple[Resolver, ...] = (RegistryResolver(surroundings.registry), MdnsResolver())
    if surroundings.static_file is not None:
        return (_file({"path": str(surroundings.static_file)}, surroundings), *chain)
    return chain


def _file(configuration: Configuration, surroundings: Surroundings) -> Resolver:
    from nameresolution.static import StaticResolver  # noqa: PLC0415 - brings in yaml, 20 ms that the chain need not pay

    _refuse_unknown("file", configuration, {"path"})
    path = configuration.get("path")
    if not isinstance(path, str) or not path:
        raise ComponentConfigurationError("file", "path", f"expected the path of a file, met {path!r}")
    return StaticResolver(Path(path), surroundings.namespace)


def _mdns(configuration: Configuration, surroundings: Surroundings) -> Resolver:
    del surroundings
    _refuse_unknown("mdns", configuration, {"include", "exclude", "budget"})
    interfaces = InterfaceFilter(
        include=_patterns(configuration, "include"), exclude=_patterns(configuration, "exclude")
    )
    budget = configuration.get("budget", 2.0)
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0.1 <= budget <= 2.0:
        raise ComponentConfigurationError("mdns", "budget", f"expected 0.1 to 2.0 seconds, met {budget!r}")
    return MdnsResolver(budget_s=float(budget), interfaces=interfaces)


def _patterns(configuration: Configuration, field: str) -> tuple[str, ...]:
    value = configuration.get(field, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ComponentConfigurationError("mdns", field, "expected a list of interface names or networks")
    return tuple(value)


def _refuse_unknown(component: str, configuration: Configuration, known: set[str]) -> None:
    for field in configuration:
        if field not in known:
            raise ComponentConfigurationError(
                component, field, f"is unknown, expected {' or '.join(sorted(known))}"
            )


CONSTRUCTORS: Mapping[str, Callable[[Configuration, Surroundings], Resolver]] = {"mdns": _mdns, "file": _file}
