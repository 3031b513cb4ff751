"""Names the callee of a request: app-ids, path and service tables, authorities, service routes. Pure."""

import re
from collections.abc import Hashable, Mapping
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct
from msgspec.structs import replace

from proxy.contract.head import Form
from proxy.contract.recording import Shape, ShapedTable, Table
from proxy.deciding.building_blocks import block_of, block_of_method
from proxy.wire.target import as_forwarded, clean, invoked
from telemetry.hosts import split_authority
from telemetry.otlp.target import PATHS

OUT_PATHS = 1  # numbers of the pushed tables
SERVICES = 2
DAPR_METHODS = 3
HTTP_PIPELINE = 4  # and two more
APP_PIPELINE = 7  # likewise
OTLP_PATHS = 10
LIMIT_PATHS = 11  # of rates; and two more
HEDGED_METHODS = 14
FIRST_ACCESS_TABLE = 16
SAMPLING_TABLES = 1 << 20  # and two more
API_TOKEN_SET = 1  # numbers of the pushed header sets
TRUTHY_SET = 2
FOREIGN_SITE_SET = 3
BEYOND_PAGES_SET = 4
PREFLIGHT_SET = 5
GRPC_WEB_SET = 6
BEARER_SET = 7
IDEMPOTENCY_SET = 8
FIRST_POLICY_SET = 16  # headers that access policies ask for
BAGGAGE_SET = 1 << 20
FORCE_SET = BAGGAGE_SET + 1
FIRST_SAMPLING_SET = BAGGAGE_SET + 2  # those that sampling rules ask for

# One SPIFFE path segment, at most 64 bytes; `id` or `id.namespace`.
_SEGMENT = r"[A-Za-z0-9_-]{1,64}"
_APP = re.compile(rf"({_SEGMENT})(?:\.({_SEGMENT}))?")
_GRPC_PATH = re.compile(
    r"/(?!\.\.?/)([A-Za-z0-9._]{1,256})/(?!\.\.?\Z)[A-Za-z0-9._]+"
)  # the service is a class, and kept: not of any length
_LOCALHOST = ".localhost"


class Callee(Struct, frozen=True):
    """An app-id in its namespace; `text` as the caller wrote it (policies are looked up by it)."""

    app_id: str
    namespace: str
    text: str

    @property
    def key(self) -> str:
        """The cluster key."""
        return f"peer:{self.app_id}.{self.namespace}"

    @property
    def name(self) -> str:
        """`app.namespace`, as it travels in `postern-callee`."""
        return f"{self.app_id}.{self.namespace}"


def parse_callee(text: str, own_namespace: str) -> Callee | None:
    """`id` or `id.namespace`; None where it is neither."""
    match = _APP.fullmatch(text)
    return Callee(match[1], match[2] or own_namespace, text) if match else None


def parse_key(key: str) -> tuple[str, str]:
    """App-id and namespace of a cluster key."""
    app_id, _, namespace = key.removeprefix("peer:").partition(".")
    return app_id, namespace


Api = Literal["healthz", "outbound", "metadata", "metadata-key", "shutdown"]
_API: dict[str, Api] = {
    "/v1.0/healthz": "healthz",
    "/v1.0/healthz/outbound": "outbound",
    "/v1.0/metadata": "metadata",
    "/v1.0/shutdown": "shutdown",
}
API_VERBS: dict[Api, str] = {
    "healthz": "GET",
    "outbound": "GET",
    "metadata": "GET",
    "metadata-key": "PUT",
    "shutdown": "POST",
}


class OutPaths:
    """The table of the app's side: ("api", which), ("invoke", app), ("block", which), ("v1",) or ("app",)."""

    shape = Shape(kind="out-paths")

    def classify(self, path: str) -> tuple[str, ...]:
        """The class of a path; an app-id is part of it, decoded once, what follows `/method` is not."""
        split = invoked(path)
        if split is not None:
            return ("invoke", unquote(split[0]))
        path = clean(path)
        if not path.startswith("/v1.0"):
            return ("app",)
        api = _API.get(path)
        if api is not None:
            return ("api", api)
        if path.startswith("/v1.0/metadata/") and path.count("/") == 3:
            return ("api", "metadata-key")
        block = block_of(path)
        if block is not None:
            return ("block", block)
        return ("v1",) if path[5:6] in ("", "/") else ("app",)


class ForwardedPaths(Struct, frozen=True):
    """A table over the path that the app finds, on Dapr's surfaces."""

    table: Table
    form: Form

    @property
    def shape(self) -> Shape | None:
        """That of the table within, over this form."""
        within = self.table.shape if isinstance(self.table, ShapedTable) else None
        return None if within is None else replace(within, form=self.form)

    def classify(self, path: str) -> Hashable:
        """The class of what the app finds in the table within."""
        return self.table.classify(as_forwarded(path, self.form))


class Services:
    """The table of gRPC targets: the service name, or "" where one is not exactly `/package.Service/Method`."""

    shape = Shape(kind="services")

    def classify(self, path: str) -> str:
        """The service of a path."""
        match = _GRPC_PATH.fullmatch(path)
        return match[1] if match else ""


DAPR_SERVICE = "dapr.proto.runtime.v1.Dapr"
DAPR_RUNTIME = "dapr.proto.runtime."
# What is served of it, with Dapr's name of the API.
_DAPR_SERVED = {
    "InvokeService": "invoke",
    "GetMetadata": "metadata",
    "SetMetadata": "metadata",
    "Shutdown": "shutdown",
}
HEALTH_SERVICE = "grpc.health.v1.Health"
#: gRPC's own services, which the server of Dapr's gRPC API has as well: about that API.
STANDARD_SERVICES = frozenset(
    {
        HEALTH_SERVICE,
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
)


class DaprMethods:
    """The table of methods of Dapr's gRPC API: ("served", API), ("block", which) or ("unknown",). Few call it, so engines need no shape."""

    def classify(self, path: str) -> tuple[str, ...]:
        """The class of a path."""
        service, _, method = path[1:].partition("/")
        if service != DAPR_SERVICE:
            return ("unknown",)
        if method in _DAPR_SERVED:
            return ("served", _DAPR_SERVED[method])
        block = block_of_method(method)
        return ("unknown",) if block is None else ("block", block)


class OtlpPaths:
    """The table of what OpenTelemetry's exporters post to: a signal or "". Only requests that name no app are looked up, so no shape."""

    def classify(self, path: str) -> str:
        """The class of a path."""
        return PATHS.get(clean(path), "")


# --- authorities -------------------------------------------------------------------------------------------------------------


def local_name(authority: str) -> str | None:
    """`cart` from `cart.localhost:50001`, None if it is not a name below localhost."""
    host = split_authority(authority)[0].removesuffix(".")
    return host[: -len(_LOCALHOST)] if host.endswith(_LOCALHOST) and len(host) > len(_LOCALHOST) else None


# --- service routes ------------------------------------------------------------------------------------------------------------

_NEVER = ("grpc.", "dapr.")  # infrastructure services belong to nobody's callee
_HOLE = re.compile(r"\{([A-Za-z]+)\}")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class RouteError(ValueError):
    """A `--route` that can't be read."""


class _Pattern(Struct, frozen=True):
    service: re.Pattern[str]
    app: str


class ServiceRoutes(Struct, frozen=True):
    """Service name to callee text: explicit names, then patterns, then learnt ones. `conflicts`: two claimants of one name."""

    exact: Mapping[str, str]
    patterns: tuple[_Pattern, ...] = ()
    learnt: Mapping[str, str] | None = None
    conflicts: Mapping[str, tuple[str, ...]] | None = None

    def find(self, service: str) -> str | None:
        """The callee of a service; None where no route names it."""
        if service.startswith(_NEVER):
            return None
        if service in self.exact:
            return self.exact[service]
        for pattern in self.patterns:
            match = pattern.service.fullmatch(service)
            if match:
                return _fill(pattern.app, match)
        return (self.learnt or {}).get(service)

    def claimants(self, service: str) -> tuple[str, ...]:
        """Who claims a service that two claim."""
        return (self.conflicts or {}).get(service, ())

    def with_learnt(self, claims: Mapping[str, frozenset[str]]) -> "ServiceRoutes":
        """The same explicit routes with what callees declare: service → app-ids that serve it."""
        learnt = {service: next(iter(apps)) for service, apps in claims.items() if len(apps) == 1}
        conflicts = {service: tuple(sorted(apps)) for service, apps in claims.items() if len(apps) > 1}
        return ServiceRoutes(self.exact, self.patterns, learnt, conflicts)


def parse_routes(routes: tuple[str, ...]) -> ServiceRoutes:
    """`shop.CartService=cart`, or a pattern such as `shop.{Name}Service={name}`: {Name} as written, {name} lower-case with dashes.

    Raises RouteError.
    """
    exact: dict[str, str] = {}
    patterns: list[_Pattern] = []
    for route in routes:
        service, equals, app = route.partition("=")
        if not equals or not service or not app:
            raise RouteError(f"route {route!r}: expected SERVICE=APP, for example shop.CartService=cart")
        if not _HOLE.search(service):
            if parse_callee(app, "default") is None:
                raise RouteError(f"route {route!r}: invalid app-id {app!r}")
            exact[service] = app
            continue
        patterns.append(_pattern(route, service, app))
    return ServiceRoutes(exact, tuple(patterns))


def _pattern(route: str, service: str, app: str) -> _Pattern:
    holes = [hole.lower() for hole in _HOLE.findall(service)]
    if len(set(holes)) < len(holes):
        raise RouteError(f"route {route!r}: a name in braces appears twice on the left")
    unknown = [hole for hole in _HOLE.findall(app) if hole.lower() not in holes]
    if unknown:
        raise RouteError(f"route {route!r}: {{{unknown[0]}}} appears on the right only")
    if parse_callee(_HOLE.sub("x", app), "default") is None:
        raise RouteError(f"route {route!r}: {app!r} does not make a valid app-id")
    expression = "".join(
        f"(?P<{part.lower()}>[A-Za-z0-9_]+)" if number % 2 else re.escape(part)
        for number, part in enumerate(_HOLE.split(service))
    )
    return _Pattern(re.compile(expression), app)


def _fill(app: str, match: re.Match[str]) -> str:
    def hole(found: re.Match[str]) -> str:
        text = match[found[1].lower()]
        return _CAMEL.sub("-", text).lower() if found[1].islower() else text

    return _HOLE.sub(hole, app)
