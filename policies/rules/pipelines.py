"""What HTTP requests pass on their way, as frozen values: `spec.httpPipeline` and `spec.appHttpPipeline`; free of YAML."""

from msgspec import Struct

from policies.rules.authorizers import ExternalAuthorizer
from policies.rules.tokens import KeySource


class Middleware(Struct, frozen=True, kw_only=True):
    """One handler of a pipeline. `name`: of its component. `path_filter`: RE2; requests whose path it does not find pass by."""

    name: str
    path_filter: str = ""

    @property
    def remote_key(self) -> str:
        """What calls are held for, where it needs something of another server."""
        return ""


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


class Uppercase(Middleware, frozen=True, kw_only=True):
    """`middleware.http.uppercase`: ASCII letters of bodies in upper case."""

    request: bool
    response: bool


class Opa(Middleware, frozen=True, kw_only=True):
    """`middleware.http.opa`: an OPA server judges requests by a policy in Rego, which it is given."""

    authorizer: ExternalAuthorizer


class Bearer(Middleware, frozen=True, kw_only=True):
    """`middleware.http.bearer`: a token (JWT) of `issuer` for `audience`. jwks_url: where its keys are, "": found by discovery."""

    issuer: str
    audience: str
    jwks_url: str = ""

    @property
    def keys(self) -> KeySource:
        """Where its issuer's keys are."""
        return KeySource(issuer=self.issuer, url=self.jwks_url)

    @property
    def remote_key(self) -> str:
        """See Middleware."""
        return self.keys.key


class ClientCredentials(Middleware, frozen=True, kw_only=True):
    """`middleware.http.oauth2clientcredentials`: requests are given a token of our own in `header`.

    auth_styles: how the client proves itself at `token_url`, header or form, the first that is taken.
    """

    client_id: str
    client_secret: str
    scopes: tuple[str, ...]
    token_url: str
    header: str
    endpoint_params: tuple[tuple[str, str], ...] = ()
    auth_styles: tuple[str, ...] = ("header", "form")

    @property
    def remote_key(self) -> str:
        """See Middleware."""
        return f"token:{self.name}"

    def __repr__(self) -> str:
        return f"ClientCredentials({self.name}, …)"


class OAuth2(Middleware, frozen=True, kw_only=True):
    """`middleware.http.oauth2`: browsers log in at `auth_url`, come back to `redirect_url`, and then send `header` with a token.

    force_https: they are sent back to the path that they asked for by https.
    """

    client_id: str
    client_secret: str
    scopes: tuple[str, ...]
    auth_url: str
    token_url: str
    redirect_url: str
    header: str
    force_https: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by https, and cookies are for that alone."""
        return self.force_https or self.redirect_url.startswith("https:")

    @property
    def remote_key(self) -> str:
        """See Middleware."""
        return f"login:{self.name}"

    def __repr__(self) -> str:
        return f"OAuth2({self.name}, …)"


class LoadedComponent(Struct, frozen=True, kw_only=True):
    """A middleware that pipelines may name, in the words of its resource."""

    name: str
    type: str
    version: str


class Pipelines(Struct, frozen=True, kw_only=True):
    """The first handler is the outermost. http: requests of the app, at its own sidecar; app: requests to an HTTP app, at that app's.
    components: those for our app of types that are built, in a pipeline or not."""

    http: tuple[Middleware, ...] = ()
    app: tuple[Middleware, ...] = ()
    components: tuple[LoadedComponent, ...] = ()
