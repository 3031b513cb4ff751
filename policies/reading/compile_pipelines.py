"""Handlers of a Configuration and the Components that they name -> Pipelines; every fault at once.

Dapr passes over a handler whose component it does not find. Here that is a fault where the handler may be the one that keeps callers out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl

from policies.reading import schema
from policies.reading.component_settings import Settings
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.effects import COMPONENT, warn_of_nothing
from policies.reading.findings import Findings
from policies.rules.authorizers import AuthorizerTls, ExternalAuthorizer
from policies.rules.pipelines import (
    Bearer,
    ClientCredentials,
    LoadedComponent,
    Middleware,
    OAuth2,
    Opa,
    Pipelines,
    RateLimit,
    RouterAlias,
    RouterChecker,
    Uppercase,
)

MIDDLEWARE = "middleware.http."
OPA_ADDRESS = "postern.dev/opa-address"
OPA_TIMEOUT_S = 1.0  # a policy is put into the server within it, too
Components = Sequence[tuple[Document, schema.Component]]

# RFC 3986 §3.3 without escapes; a segment of a pattern may be a name in braces.
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_HOLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")


def compile_pipelines(
    configurations: Sequence[tuple[Document, schema.Configuration]],
    components: Components,
    own_app_id: str,
    env: Mapping[str, str],
    findings: Findings,
) -> Pipelines:
    """The pipelines of the last Configuration that writes each."""
    compiler = _Compiler(components, own_app_id, env, findings)
    http = compiler.pipeline(configurations, "httpPipeline", lambda spec: spec.http_pipeline)
    app = compiler.pipeline(configurations, "appHttpPipeline", lambda spec: spec.app_http_pipeline)
    compiler.warn_of_unused()
    return Pipelines(http=http, app=app, components=compiler.loaded())


class _Compiler:
    """Mutable state: the components that were named."""

    def __init__(
        self, components: Components, own_app_id: str, env: Mapping[str, str], findings: Findings
    ) -> None:
        self._components = components
        self._own = own_app_id
        self._env = env
        self._findings = findings
        self._used: set[int] = set()

    def pipeline(
        self,
        configurations: Sequence[tuple[Document, schema.Configuration]],
        key: str,
        of: Callable[[schema.ConfigurationSpec], schema.Pipeline],
    ) -> tuple[Middleware, ...]:
        """One of the two."""
        place: Place = ("spec", key, "handlers")
        writers = [(document, one) for document, one in configurations if document.has(place)]
        if not writers:
            return ()
        document, configuration = writers[-1]
        made = [
            self._handler(document, (*place, number), handler)
            for number, handler in enumerate(of(configuration.spec).handlers)
        ]
        return tuple(one for one in made if one is not None)

    def loaded(self) -> tuple[LoadedComponent, ...]:
        """What the metadata lists."""
        mine = [one for _, one in self._components if not one.scopes or self._own in one.scopes]
        return tuple(
            LoadedComponent(name=one.metadata.name, type=one.spec.type, version=one.spec.version)
            for one in mine
            if one.spec.type.lower().removeprefix(MIDDLEWARE) in _KINDS
        )

    def _handler(self, document: Document, place: Place, handler: schema.Handler) -> Middleware | None:
        kind = handler.type.lower().removeprefix(MIDDLEWARE)
        is_lenient = kind in _HARMLESS

        def fault(problem: str) -> None:
            self._findings.fault(document, place, problem, is_lenient=is_lenient)

        what = f"component {handler.name} of type {handler.type}"
        matching = [number for number, (_, one) in enumerate(self._components) if _is_named(one, handler)]
        if not matching:
            problem = f"{what} is not among the resources ({self._hint(handler)})"
            if is_lenient:
                self._findings.warn(document, place, f"{problem}: passed over")
            else:
                fault(problem)
            return None
        self._used.update(matching)
        found = [self._components[number] for number in matching]
        mine = [(where, one) for where, one in found if not one.scopes or self._own in one.scopes]
        if not mine:
            scopes = ", ".join(found[0][1].scopes)
            fault(f"{what} is scoped to {scopes} (expected {self._own} among its scopes, or no handler)")
            return None
        where, component = mine[0]
        if len(mine) > 1:
            second = f"{mine[1][0].path}:{mine[1][0].line}"
            fault(f"{what} is there twice, at {where.path}:{where.line} and {second} (expected one)")
        return self._middleware(where, component, kind, fault)

    def _middleware(
        self, document: Document, component: schema.Component, kind: str, fault: Callable[[str], None]
    ) -> Middleware | None:
        what = f"component {component.metadata.name} ({document.path}:{document.line}) is of type {component.spec.type}"
        read = _KINDS.get(kind)
        if read is None or (component.spec.version or "v1").lower() != "v1":
            why = _NOT_BUILT.get(kind, f"which is unknown (expected {MIDDLEWARE}{{{', '.join(_KINDS)}}} v1)")
            fault(f"{what}, {why}")
            return None
        settings = Settings(document, component, self._env, self._findings)
        made = read(settings)
        settings.finish()
        return made

    def _hint(self, handler: schema.Handler) -> str:
        others = [
            f"{one.spec.type} {one.spec.version or 'v1'}"
            for _, one in self._components
            if one.metadata.name == handler.name
        ]
        if others:
            return f"the one of that name is of type {' and '.join(others)}"
        return "expected a file with kind: Component in --resources-path"

    def warn_of_unused(self) -> None:
        """Name what is in no pipeline."""
        for number, (document, component) in enumerate(self._components):
            warn_of_nothing(document, COMPONENT, self._findings)
            if number not in self._used and (not component.scopes or self._own in component.scopes):
                self._findings.warn(document, ("metadata", "name"), "is in no pipeline and has no effect")


def _is_named(component: schema.Component, handler: schema.Handler) -> bool:
    spec = component.spec
    return (
        component.metadata.name == handler.name
        and spec.type.lower() == handler.type.lower()
        and (spec.version or "v1").lower() == (handler.version or "v1").lower()
    )


def _rate_limit(settings: Settings) -> Middleware:
    return RateLimit(name=settings.name, per_s=settings.number("maxRequestsPerSecond", default=100.0))


def _router_alias(settings: Settings) -> Middleware:
    routes = settings.mapping("routes")
    shapes: dict[str, str] = {}
    for path, target in routes.items():
        holes = _HOLE.findall(path)
        plain = "/".join("x" if _HOLE.fullmatch(one) else one for one in path.split("/"))
        if _PATH.fullmatch(plain) is None or len(set(holes)) < len(holes):
            settings.fault(
                "routes", f"`{path}` is not a path (expected one such as /orders/{{id}}, without escapes)"
            )
        if _PATH.fullmatch(target) is None:
            settings.fault("routes", f"`{target}` is not a path (expected one without a query and escapes)")
        shape = _HOLE.sub("{}", path.rstrip("/"))
        if shape in shapes:
            settings.fault("routes", f"`{path}` and `{shapes[shape]}` are for the same paths (expected one)")
        shapes[shape] = path
    return RouterAlias(name=settings.name, routes=tuple(routes.items()))


def _router_checker(settings: Settings) -> Middleware:
    return RouterChecker(name=settings.name, rule=settings.pattern("rule", default=None))


def _uppercase(settings: Settings) -> Middleware:
    request, response = settings.choice("direction", _DIRECTIONS, default="request")
    return Uppercase(name=settings.name, request=request, response=response)


def _opa(settings: Settings) -> Middleware:
    rego = settings.text("rego", default=None)
    if rego and _HTTP_PACKAGE.search(rego) is None:
        settings.fault("rego", "is of another package (expected `package http`, and its rule `allow`)")
    elif "data.http" in rego:
        settings.fault(
            "rego", "names data.http, which has another name in the server (expected the rule's own name)"
        )
    if settings.choice("readBody", _TRUTH, default="false"):
        settings.fault(
            "readBody", "is true, and bodies are not read here (expected false: judge by the head)"
        )
    address = settings.url(OPA_ADDRESS)
    if not settings.text(OPA_ADDRESS):
        settings.fault(
            OPA_ADDRESS,
            f"{OPA_ADDRESS} is missing (expected the URL of an OPA server, such as http://localhost:8181: Rego is not run here)",
        )
    status = settings.number("defaultStatus", default=403.0)
    if not (status.is_integer() and 200 <= status <= 599):
        settings.fault("defaultStatus", f"`{status:g}` is not an HTTP status code (expected 200 to 599)")
    names = (one.strip().lower() for one in settings.text("includedHeaders").split(","))
    asked = ExternalAuthorizer(
        name=settings.name,
        kind="opa",
        target=address,
        timeout_s=OPA_TIMEOUT_S,
        headers=frozenset(filter(None, names)),
        tls=AuthorizerTls() if address.startswith("https:") else None,
        rego=rego,
        default_status=int(status),
    )
    return Opa(name=settings.name, authorizer=asked)


def _bearer(settings: Settings) -> Middleware:
    return Bearer(
        name=settings.name,
        issuer=settings.url("issuer", "issuerURL", default=None),
        audience=settings.text("audience", "clientID", default=None),
        jwks_url=settings.url("jwksURL"),
    )


def _oauth2(settings: Settings) -> Middleware:
    return OAuth2(
        name=settings.name,
        client_id=settings.text("clientId", default=None),
        client_secret=settings.text("clientSecret", default=None),
        scopes=_scopes(settings),
        auth_url=settings.url("authURL", default=None),
        token_url=settings.url("tokenURL", default=None),
        redirect_url=settings.url("redirectURL", default=None),
        header=_header(settings, "authHeaderName", default="authorization"),
        force_https=settings.choice("forceHTTPS", _TRUTH, default="false"),
        path_filter=settings.pattern("pathFilter"),
    )


def _header(settings: Settings, name: str, *, default: str | None) -> str:
    header = settings.text(name, default=default)
    if _FIELD.fullmatch(header) is None or header.lower() in _NOT_SET:
        settings.fault(
            name, f"`{header}` is not a header that can be set (expected one such as authorization)"
        )
    return header.lower()


def _client_credentials(settings: Settings) -> Middleware:
    return ClientCredentials(
        name=settings.name,
        client_id=settings.text("clientId", default=None),
        client_secret=settings.text("clientSecret", default=None),
        scopes=_scopes(settings),
        token_url=settings.url("tokenURL", default=None),
        header=_header(settings, "headerName", default=None),
        endpoint_params=tuple(parse_qsl(settings.text("endpointParamsQuery"), keep_blank_values=True)),
        auth_styles=settings.choice("authStyle", _AUTH_STYLES, default="0"),
        path_filter=settings.pattern("pathFilter"),
    )


def _scopes(settings: Settings) -> tuple[str, ...]:
    return tuple(filter(None, (one.strip() for one in settings.text("scopes").split(","))))


# As golang.org/x/oauth2 numbers them: whichever is taken, in the form, in the header.
_AUTH_STYLES = {"0": ("header", "form"), "1": ("form",), "2": ("header",)}
_DIRECTIONS = {"request": (True, False), "response": (False, True), "both": (True, True)}
_TRUTH = {  # as Dapr reads it
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
}
_HTTP_PACKAGE = re.compile(r"^[ \t]*package[ \t]+http[ \t]*(?:#.*)?$", re.MULTILINE)
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_SET = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "trailer"),
        *("content-length", "content-type", "host", "expect", "cookie"),
    }
)
_KINDS: Mapping[str, Callable[[Settings], Middleware]] = {
    "bearer": _bearer,
    "oauth2": _oauth2,
    "oauth2clientcredentials": _client_credentials,
    "opa": _opa,
    "ratelimit": _rate_limit,
    "routeralias": _router_alias,
    "routerchecker": _router_checker,
    "uppercase": _uppercase,
}
_NOT_BUILT: Mapping[str, str] = {
    "sentinel": "which is not built (ratelimit and --app-max-concurrency limit calls)",
    "wasm": "which is not built",
}
# Without these nobody comes in who would not come in with them.
_HARMLESS = frozenset({"routeralias", "oauth2clientcredentials", "uppercase"})
