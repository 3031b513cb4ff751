"""The values of name resolution and the contract of a source: what every resolver guarantees.

Knows no network, no file and no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from msgspec import Struct

MESH_ATTRIBUTE = "m"
NAMESPACE_ATTRIBUTE = "ns"
INSTANCE_ATTRIBUTE = "i"
WEIGHT_ATTRIBUTE = "w"


def join_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class AppName(Struct, frozen=True):
    """An app-id in its namespace; compared case-sensitively."""

    app_id: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.app_id}.{self.namespace}"


class Endpoint(Struct, frozen=True, kw_only=True):
    """One address at which the proxy of an instance listens for peers.

    `host` is an IP address without brackets, or a host name. `instance` is "" where the source names none.
    `source` is the `Resolver.source` that found it. `attributes` are unauthenticated hints.
    """

    host: str
    port: int
    instance: str = ""
    source: str = ""
    weight: int = 1
    attributes: tuple[tuple[str, str], ...] = ()
    own: bool = False

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return join_address(self.host, self.port)

    def attribute(self, key: str) -> str:
        """The value of one attribute, "" when absent."""
        return next((value for name, value in self.attributes if name == key), "")


class EndpointSet(Struct, frozen=True, kw_only=True):
    """All known endpoints of one name, in a stable order; empty means: looked up, none found.

    `stale` says that a source which gave some of them has failed since. `tried` has one line a source.
    """

    name: AppName
    endpoints: tuple[Endpoint, ...]
    stale: bool = False
    tried: tuple[str, ...] = ()


class Instance(Struct, frozen=True, kw_only=True):
    """What a sidecar announces of itself. `host` is the advertised IP address, `port` its peer port.

    `http_host` is where its HTTP API can be asked for its health, "" for `host`. A port is 0 where there is none.
    """

    app_id: str
    namespace: str
    host: str
    port: int
    instance: str
    mesh: str = ""
    weight: int = 1
    attributes: tuple[tuple[str, str], ...] = ()
    app_port: int = 0
    http_host: str = ""
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0


class SourceFailure(Struct, frozen=True, kw_only=True):
    """Why a source has no endpoints.

    `missing` means that the source works and knows of none, so what it gave before is withdrawn; otherwise the
    source itself failed and what it gave before is kept as stale. `fix` is what a user could do about it.
    """

    reason: str
    fix: str = ""
    missing: bool = False

    def __str__(self) -> str:
        return f"{self.reason} (fix: {self.fix})" if self.fix else self.reason


Found: TypeAlias = tuple[Endpoint, ...] | SourceFailure
Push: TypeAlias = Callable[[str, AppName, Found], None]
"""`push(source, name, found)`: replaces all that this source said of that name; called on the event loop."""


class Resolver(Protocol):
    """One source of endpoints. All methods are called on one event loop."""

    @property
    def source(self) -> str:
        """A short name for people, unique in a directory."""
        ...

    @property
    def lag_s(self) -> float:
        """How old news of a watched name may be when it is pushed; 0 where the source is told of changes, or people make them."""
        ...

    async def run(self, push: Push) -> None:
        """Work until cancelled. A source that is blocked says so by pushing `SourceFailure`, it does not raise."""
        ...

    def watch(self, name: AppName) -> None:
        """Ask for a name now, push what came of it even if unchanged, and push every change from then on.

        Also before `run` began, and repeatedly.
        """
        ...

    def forget(self, name: AppName) -> None:
        """Stop watching a name."""
        ...

    async def announce(self, instance: Instance) -> None:
        """Make an instance known, replacing the one announced before."""
        ...

    async def withdraw(self) -> None:
        """Take the announced instance back at once; others are told where the source can tell them."""
        ...
