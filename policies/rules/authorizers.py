"""External authorizers: who is asked about calls that the rules leave to them, and how. Frozen; free of YAML and of sockets."""

from typing import Literal

from msgspec import Struct

AuthorizerKind = Literal["grpc", "http", "opa"]


class AuthorizerTls(Struct, frozen=True, kw_only=True):
    """By what an authorizer proves itself: a chain to roots in `ca_file` (PEM; "": the system's), for `server_name` ("": its host)."""

    ca_file: str = ""
    server_name: str = ""


class ExternalAuthorizer(Struct, frozen=True, kw_only=True):
    """One authorizer.

    kind: what is spoken. grpc: `envoy.service.auth.v3.Authorization`, at `host:port`. http: the request's own verb, path and some headers
    to a URL, as Envoy sends them, of which 200 lets pass. opa: OPA's data API at the URL of a rule.
    headers: those of the request that are told, beside the ones that always are; None: all of them. to_app: fields of an HTTP answer that
    the app is given. cache_s: how long an answer holds for equal questions, 0: it does not. tls: None for plaintext.
    rego, default_status: of Dapr's middleware, whose policy `rego` is put into the server first, and what a denial without a status has.
    """

    name: str
    kind: AuthorizerKind
    target: str
    timeout_s: float = 0.25
    is_fail_open: bool = False
    headers: frozenset[str] | None = None
    to_app: frozenset[str] = frozenset()
    cache_s: float = 0.0
    tls: AuthorizerTls | None = None
    rego: str = ""
    default_status: int = 403
