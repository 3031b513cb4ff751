"""Which resolvers a sidecar uses: the component's name to its constructor, and the chain used when none is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from nameresolution.errors import ComponentConfigurationError, UnknownComponentError
from nameresolution.fields import Fields
from nameresolution.host_registry import HostRegistry
from nameresolution.interfaces import InterfaceFilter
from nameresolution.mdns.resolver import MdnsResolver
from nameresolution.registry_resolver import RegistryResolver
from nameresolution.resolver import Resolver

if TYPE_CHECKING:
    from nameresolution.consul.agent import HttpRequest

PLANNED = ("kubernetes", "nameformat", "aws.cloudmap")


class Surroundings(Struct, frozen=True, kw_only=True):
    """What constructors need beside their configuration. `static_file` is the file of the default chain, if any; `request` is the
    client for what is asked over HTTP.
    """

    namespace: str
    registry: HostRegistry
    request: HttpRequest
    env: Mapping[str, str] = {}
    static_file: Path | None = None
    configured_at: str = ""  # FILE:LINE of the component, for its faults


def build(component: str | None, configuration: object, surroundings: Surroundings) -> tuple[Resolver, ...]:
    """The resolvers in order of precedence: those of the named component alone, else the default chain.

    Raises: UnknownComponentError, ComponentConfigurationError, StaticFileError.
    """
    if component:
        name = component.lower()
        constructor = CONSTRUCTORS.get(name)
        if constructor is None:
            planned = PLANNED if name in PLANNED else ()
            raise UnknownComponentError(component, CONSTRUCTORS, planned, surroundings.configured_at)
        try:
            return (constructor(configuration, surroundings),)
        except ComponentConfigurationError as error:
            parts = (error.component, error.field, error.problem)
            raise ComponentConfigurationError(*parts, surroundings.configured_at) from error
    chain: tuple[Resolver, ...] = (RegistryResolver(surroundings.registry), MdnsResolver())
    if surroundings.static_file is not None:
        return (_file({"path": str(surroundings.static_file)}, surroundings), *chain)
    return chain


def _file(configuration: object, surroundings: Surroundings) -> Resolver:
    from nameresolution.static import StaticResolver  # noqa: PLC0415 - brings in yaml, 20 ms that the chain need not pay

    fields = Fields("file", configuration, ("path",))
    path = fields.get("path")
    if not isinstance(path, str) or not path:
        raise fields.fault("path", f"expected the path of a file, got {path!r}")
    return StaticResolver(Path(path), surroundings.namespace)


def _mdns(configuration: object, surroundings: Surroundings) -> Resolver:
    del surroundings
    fields = Fields("mdns", configuration, ("include", "exclude", "budget"))
    what = "interface names or networks"
    interfaces = InterfaceFilter(include=fields.texts("include", what), exclude=fields.texts("exclude", what))
    budget = fields.get("budget")
    budget = 2.0 if budget is None else budget
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0.1 <= budget <= 2.0:
        raise fields.fault("budget", f"expected 0.1 to 2.0 seconds, got {budget!r}")
    return MdnsResolver(budget_s=float(budget), interfaces=interfaces)


def _sqlite(configuration: object, surroundings: Surroundings) -> Resolver:
    del surroundings
    try:
        from nameresolution.sqlite.resolver import SqliteResolver  # noqa: PLC0415 - brings in sqlite3, for those who use it
    except ImportError as error:  # an interpreter may be built without it
        raise ComponentConfigurationError(
            "sqlite", "component", f"this Python has no SQLite: {error}"
        ) from error
    from nameresolution.sqlite.settings import parse_settings  # noqa: PLC0415 - with it

    return SqliteResolver(parse_settings(configuration))


def _consul(configuration: object, surroundings: Surroundings) -> Resolver:
    from nameresolution.consul.agent import ConsulAgent  # noqa: PLC0415 - for those who use it
    from nameresolution.consul.resolver import ConsulResolver  # noqa: PLC0415 - with it
    from nameresolution.consul.settings import parse_settings  # noqa: PLC0415 - with it

    settings = parse_settings(configuration, surroundings.env)
    return ConsulResolver(settings, ConsulAgent(settings.agent, surroundings.request))


CONSTRUCTORS: Mapping[str, Callable[[object, Surroundings], Resolver]] = {
    "mdns": _mdns,
    "file": _file,
    "sqlite": _sqlite,
    "consul": _consul,
    "hashicorp.consul": _consul,
}
