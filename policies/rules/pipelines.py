"""What HTTP requests pass on their way, as frozen values: `spec.httpPipeline` and `spec.appHttpPipeline`; free of YAML."""

from msgspec import Struct


class Middleware(Struct, frozen=True, kw_only=True):
    """One handler of a pipeline. `name`: of its component. `path_filter`: RE2; requests whose path it does not find pass by."""

    name: str
    path_filter: str = ""


class RateLimit(Middleware, frozen=True, kw_only=True):
    """`middleware.http.ratelimit`: of each caller `burst` requests at once, and `per_s` a second in the long run."""

    per_s: float

    @property
    def burst(self) -> int:
        """As Dapr has it: what a second allows, and one at least."""
        return max(1, int(self.per_s))


class RouterAlias(Middleware, frozen=True, kw_only=True):
    """`middleware.http.routeralias`: path → path. A segment `{x}` on the left stands for any, and becomes the query parameter x."""

    routes: tuple[tuple[str, str], ...]


class RouterChecker(Middleware, frozen=True, kw_only=True):
    """`middleware.http.routerchecker`: `rule` (RE2) is found in path and query, or the request is refused."""

    rule: str


class Pipelines(Struct, frozen=True, kw_only=True):
    """The first handler is the outermost. http: requests of the app, at its own sidecar; app: requests to an HTTP app, at that app's."""

    http: tuple[Middleware, ...] = ()
    app: tuple[Middleware, ...] = ()
