"""Which of Dapr's APIs an app may call: `spec.api` of a Configuration. Pure.

Source: Dapr's documentation, "How-To: Selectively enable Dapr APIs on the Dapr sidecar". Health checks are never closed.
"""

import re
from typing import Literal

from msgspec import Struct

ApiProtocol = Literal["http", "grpc"]
PROTOCOLS: tuple[ApiProtocol, ...] = ("http", "grpc")
#: The first parts of paths below /v1.0/, and Dapr's names of the same methods in gRPC.
NAMES = frozenset(
    {
        *("actors", "bindings", "configuration", "conversation", "crypto", "healthz", "invoke", "jobs", "lock"),
        *("metadata", "publish", "secrets", "shutdown", "state", "subscribe", "subtlecrypto", "unlock", "workflows"),
    }
)  # fmt: skip
_VERSION = re.compile(r"v1(?:\.0)?(?:-?((?:alpha|beta)[1-9]))?")


class ApiRule(Struct, frozen=True, kw_only=True):
    """An API. name: that of NAMES, over HTTP also the beginning of a path such as `metadata/{key}`. version: as `version_of` has it."""

    name: str
    version: str
    protocol: ApiProtocol

    def covers(self, protocol: ApiProtocol, route: str) -> bool:
        """Whether the rule is about a path below /v1.0/, or a name of gRPC."""
        if protocol != self.protocol or self.version != "v1":
            return False
        return route.startswith(self.name) if protocol == "http" else route == self.name


class ApiLists(Struct, frozen=True, kw_only=True):
    """`allowed` and `denied`, which wins. One allowed rule for a protocol closes all else of it."""

    allowed: tuple[ApiRule, ...] = ()
    denied: tuple[ApiRule, ...] = ()

    def is_closed(self, protocol: ApiProtocol, route: str) -> bool:
        """Whether an app may not call a route: over HTTP its path below /v1.0/, in gRPC its name."""
        if any(rule.covers(protocol, route) for rule in self.denied):
            return True
        return self.lists_allowed(protocol) and not any(rule.covers(protocol, route) for rule in self.allowed)

    def lists_allowed(self, protocol: ApiProtocol) -> bool:
        """Whether what is open is listed, and all else closed."""
        return any(rule.protocol == protocol for rule in self.allowed)


def version_of(text: str) -> str | None:
    """`v1` for `v1` and `v1.0`, `v1alpha1` for `v1alpha1` and `v1.0-alpha1`; None for anything else."""
    match = _VERSION.fullmatch(text)
    return None if match is None else f"v1{match[1] or ''}"
