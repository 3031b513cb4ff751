"""Schemas of postern's own kinds, read like Dapr's: see `schema.py`."""

from typing import Literal

from msgspec import field

from policies.reading.schema import Metadata, OwnSection


class From(OwnSection, frozen=True):
    """`from` of a rule: of each list that is there, one entry must fit the caller."""

    apps: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    trust_domains: list[str] = field(default_factory=list)
    principals: list[str] = field(default_factory=list)


class Grpc(OwnSection, frozen=True):
    """`grpc` of `to`."""

    services: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)


class To(OwnSection, frozen=True):
    """`to` of a rule."""

    methods: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    grpc: Grpc | None = None


class Jwt(OwnSection, frozen=True):
    """`jwt` of `when`: a verified token."""

    issuers: list[str] = field(default_factory=list)
    claims: dict[str, list[str]] = field(default_factory=dict)


class When(OwnSection, frozen=True):
    """`when` of a rule: further conditions, all of which must hold."""

    header: dict[str, list[str]] = field(default_factory=dict)
    jwt: Jwt | None = None


class PolicyRule(OwnSection, frozen=True):
    """An entry of `rules`."""

    name: str
    action: Literal["allow", "deny", "authorize"]
    authorizer: str = ""
    from_: From | Literal["anonymous"] = field(name="from", default=From())
    to: To = To()
    when: When = When()


class JwtIssuer(OwnSection, frozen=True):
    """An entry of `jwt`: whose tokens count."""

    name: str
    issuer: str
    audiences: list[str]
    jwks_url: str = ""
    jwks_file: str = ""
    forward_claims: list[str] = field(default_factory=list)


class AuthorizerTls(OwnSection, frozen=True):
    """`tls` of an authorizer."""

    ca_file: str = ""
    server_name: str = ""


class Authorizer(OwnSection, frozen=True):
    """An entry of `authorizers`: who is asked, by one of `grpc`, `http` and `opa`."""

    name: str
    grpc: str = ""
    http: str = ""
    opa: str = ""
    timeout: str = "250ms"
    fail_open: bool = False
    headers: list[str] | None = None
    to_app: list[str] = field(default_factory=list)
    cache: str = ""
    tls: AuthorizerTls | None = None


class AccessPolicySpec(OwnSection, frozen=True):
    """`spec` of an AccessPolicy."""

    mode: Literal["enforce", "audit", "off"] = "enforce"
    default: Literal["allow", "deny"] = "deny"
    override: bool = False
    trust_domain_aliases: list[str] = field(default_factory=list)
    jwt: list[JwtIssuer] = field(default_factory=list)
    authorizers: list[Authorizer] = field(default_factory=list)
    rules: list[PolicyRule] = field(default_factory=list)


class AccessPolicy(OwnSection, frozen=True):
    """kind: AccessPolicy."""

    kind: Literal["AccessPolicy"]
    api_version: Literal["postern.dev/v1alpha1"]
    metadata: Metadata
    spec: AccessPolicySpec
    scopes: list[str] = field(default_factory=list)
