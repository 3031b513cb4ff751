"""AccessPolicy documents -> AccessPolicies; every fault at once. None is lenient: a rule that is left out could let somebody in."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from policies.reading import own_schema
from policies.reading.compile_authorizers import external_authorizers
from policies.reading.compile_tokens import token_condition, token_issuers
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings, Spot
from policies.rules.access import KNOWN_VERBS
from policies.rules.access_policies import (
    MODES,
    AccessPolicies,
    Callers,
    HeaderCondition,
    Pattern,
    PolicyMode,
    PolicyRule,
    PolicyRules,
    policy_rules,
)
from policies.rules.authorizers import ExternalAuthorizer
from policies.rules.templates import ONE, REST, Template, template_table
from policies.rules.tokens import TokenIssuer

MAX_RULES = 10_000  # of one sidecar, as of spec.accessControl
MAX_TEMPLATE_CHARS = 2_048
MAX_TEMPLATES = 100  # of one rule

_RULES: Place = ("spec", "rules")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERB = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_SERVICE = re.compile(r"[A-Za-z0-9._]{0,256}\*?")
_METHOD = re.compile(r"[A-Za-z0-9_]{1,256}")
_NEVER = re.compile(r"[\x00-\x20\x7f?#\\;%]|//|/\.\.?(?:/|\Z)")
_SECRET_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "dapr-api-token", "dapr-app-id"}
)

Documents = Sequence[tuple[Document, own_schema.AccessPolicy]]


def compile_access_policies(
    documents: Documents,
    *,
    own_app_id: str,
    own_namespace: str,
    own_trust_domain: str | None,
    findings: Findings,
    mode: PolicyMode = "enforce",
) -> AccessPolicies:
    """The policies for one app, in load order. Those scoped to other apps are checked and left out.

    mode: the most that they may be in, whatever each says.
    """
    sets = {one: PolicySet() for one in MODES}
    for document, policy in documents:
        reader = PolicyReader(document, own_namespace, own_trust_domain, findings)
        is_ours = not policy.scopes or own_app_id in policy.scopes
        # One that is not in force here is checked all the same: it is in another sidecar, or will be.
        in_force = min(policy.spec.mode, mode, key=MODES.index)
        reader.read(policy, sets[in_force] if is_ours else PolicySet())
        if is_ours and in_force != policy.spec.mode:
            text = f"is {in_force} here, as --access-policy-mode says"
            findings.warn(document, ("spec", "mode"), text)
    return AccessPolicies(
        enforced=sets["enforce"].rules(own_trust_domain), audited=sets["audit"].rules(own_trust_domain)
    )


class PolicySet(Struct):
    """The policies that are in force together, as they are read. asking: what rules that authorize ask about, by their names."""

    by_name: dict[str, PolicyRule] = field(default_factory=dict)
    asking: dict[str, PolicyRule] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    templates: dict[Template, int] = field(default_factory=dict)
    headers: dict[HeaderCondition, int] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    issuers: dict[str, TokenIssuer] = field(default_factory=dict)
    authorizers: dict[str, ExternalAuthorizer] = field(default_factory=dict)
    default_allow: bool | None = None  # None: no policy was read

    def rules(self, own_trust_domain: str | None) -> PolicyRules | None:
        """All of them; None where there is no policy."""
        if self.default_allow is None:
            return None
        return policy_rules(
            (*self.by_name.values(), *self.asking.values()),
            default_allow=self.default_allow,
            table=template_table(tuple(self.templates)),
            headers=tuple(self.headers),
            aliases=frozenset(self.aliases),
            own_trust_domain=own_trust_domain,
            issuers=tuple(self.issuers.values()),
            authorizers=tuple(self.authorizers.values()),
        )


class PolicyReader:
    """Reads one document into a set."""

    def __init__(
        self, document: Document, own_namespace: str, own_trust_domain: str | None, findings: Findings
    ) -> None:
        self._document = document
        self._namespace = own_namespace
        self._trust_domain = own_trust_domain
        self._findings = findings
        self._spot = Spot(document, findings)

    def read(self, policy: own_schema.AccessPolicy, into: PolicySet) -> None:
        """Adds a policy to those before it."""
        name = policy.metadata.name
        self._name(("metadata", "name"), name)
        self._default(policy.spec, into)
        self._aliases(policy.spec, into)
        self._issuers(policy.spec, into)
        self._authorizers(policy.spec, into)
        if len(policy.spec.rules) + len(into.by_name) > MAX_RULES:
            self._spot.fault(_RULES, f"has too many rules (expected at most {MAX_RULES} in all policies)")
            return
        seen: dict[str, int] = {}
        for number, rule in enumerate(policy.spec.rules):
            place: Place = (*_RULES, number)
            self._name((*place, "name"), rule.name)
            if rule.name in seen:
                line = self._document.line_of((*_RULES, seen[rule.name]))
                self._spot.fault((*place, "name"), f"{rule.name} is named again (first on line {line})")
            elif rule.name in into.by_name:
                text = f"takes the place of the rule {rule.name} at {into.lines[rule.name]}"
                self._spot.warn((*place, "name"), text)
            seen[rule.name] = number
            into.lines[rule.name] = f"{self._document.path}:{self._document.line_of(place)}"
            into.by_name[rule.name] = self.rule(place, rule, name, into)
            into.asking.pop(rule.name, None)
            if rule.action == "authorize":
                into.asking[rule.name] = self._asking(place, rule, name, into)

    def _name(self, place: Place, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            said = f"`{name}` can't be a name" if name else "is missing"
            self._spot.fault(place, f"{said} (expected up to 128 letters, digits, '.', '_' or '-')")

    def _default(self, spec: own_schema.AccessPolicySpec, into: PolicySet) -> None:
        """Later policies may tighten the default; to loosen it takes `override`."""
        place: Place = ("spec", "default")
        is_allow = spec.default == "allow"
        if into.default_allow is False and is_allow and not spec.override:
            self._spot.fault(
                place, "allow would loosen the default of an earlier policy (write override: true)"
            )
            return
        if into.default_allow and not is_allow:
            text = "deny takes the place of allow, the default of an earlier policy"
            self._spot.warn(place, text)
        into.default_allow = is_allow

    def _aliases(self, spec: own_schema.AccessPolicySpec, into: PolicySet) -> None:
        for number, domain in enumerate(spec.trust_domain_aliases):
            if _TRUST_DOMAIN.fullmatch(domain) is None:
                problem = f"`{domain}` is not a trust domain (expected a-z, 0-9, dot, dash, underscore)"
                self._spot.fault(("spec", "trustDomainAliases", number), problem)
            into.aliases.add(domain)

    def _issuers(self, spec: own_schema.AccessPolicySpec, into: PolicySet) -> None:
        """Those of earlier policies stay; of the same issuer there is one."""
        folder = Path(self._document.path).parent
        for number, one in enumerate(token_issuers(spec.jwt, folder, self._spot.fault)):
            known = into.issuers.get(one.name)
            others = {each.keys.issuer for each in into.issuers.values() if each.name != one.name}
            if (known is not None and known != one) or one.keys.issuer in others:
                text = "is not as an earlier policy has it (expected one entry for each issuer)"
                self._spot.fault(("spec", "jwt", number), text)
            into.issuers[one.name] = one

    def _authorizers(self, spec: own_schema.AccessPolicySpec, into: PolicySet) -> None:
        """Those of earlier policies stay."""
        for number, one in enumerate(external_authorizers(spec.authorizers, self._document, self._findings)):
            if into.authorizers.get(one.name, one) != one:
                text = f"{one.name} is not as an earlier policy has it (expected another name)"
                self._spot.fault(("spec", "authorizers", number), text)
            into.authorizers[one.name] = one

    def _asking(self, place: Place, rule: own_schema.PolicyRule, policy: str, into: PolicySet) -> PolicyRule:
        """What a rule that authorizes asks about: all that it would deny, were it a denial."""
        known = ", ".join(into.authorizers)
        if rule.authorizer not in into.authorizers:
            said = f"`{rule.authorizer}` is not in spec.authorizers" if rule.authorizer else "is missing"
            expected = f"expected one of {known}" if known else "expected an entry there, and its name here"
            self._spot.fault((*place, "authorizer"), f"{said} ({expected})")
        # What is wrong with its fields was told when they were read as an allow.
        unheard = PolicyReader(self._document, self._namespace, self._trust_domain, Findings())
        return replace(
            unheard.rule(place, replace(rule, action="deny"), policy, into), asks=rule.authorizer or "-"
        )

    def rule(self, place: Place, rule: own_schema.PolicyRule, policy: str, into: PolicySet) -> PolicyRule:
        """One rule of the policy of that name, whose templates and headers go into a set: what it denies, or else what it allows."""
        is_allow = rule.action != "deny"
        if rule.action != "allow" and (rule.when.jwt is not None or rule.when.header):
            done = "denied" if rule.action == "deny" else "asked about"
            text = f"is chosen by callers: one that leaves it out is not {done} (expected an allow that asks for it)"
            self._spot.warn((*place, "when"), text)
        if rule.authorizer and rule.action != "authorize":
            self._spot.fault(
                (*place, "authorizer"), f"is beside action {rule.action} (expected action: authorize)"
            )
        methods = self._methods((*place, "to", "methods"), rule.to)
        texts = [*self._paths((*place, "to", "paths"), rule.to), *self._grpc((*place, "to", "grpc"), rule.to)]
        if len(texts) > MAX_TEMPLATES:
            self._spot.fault(
                (*place, "to"), f"names {len(texts)} paths (expected at most {MAX_TEMPLATES} in a rule)"
            )
        # A denial must hold for apps that take no notice of case; what is allowed is meant as it is written.
        templates = [Template(text, folds=not is_allow) for text in texts]
        numbers = frozenset(into.templates.setdefault(one, len(into.templates)) for one in templates)
        return PolicyRule(
            policy=policy,
            name=rule.name,
            is_allow=is_allow,
            callers=self._callers((*place, "from"), rule.from_, is_allow=is_allow),
            methods=methods,
            templates=numbers if texts or rule.to.grpc is not None else None,
            is_grpc=is_allow and rule.to.grpc is not None,
            headers=self.headers(place, rule.when.header, into),
            token=token_condition(rule.when.jwt, (*place, "when", "jwt"), into.issuers, self._spot.fault),
        )

    def _callers(self, place: Place, written: own_schema.From | str, *, is_allow: bool) -> Callers:
        """Where an allow leaves namespaces or trust domains out, it means our own, and a deny all."""
        if not isinstance(written, own_schema.From):
            return Callers(anonymous=True)
        lists = {
            "apps": written.apps,
            "namespaces": written.namespaces,
            "trustDomains": written.trust_domains,
            "principals": written.principals,
        }
        for key, texts in lists.items():
            if self._document.has((*place, key)) and not texts:
                self._spot.fault((*place, key), "is empty (expected an entry, or leave it out)")
        means_own = is_allow and not written.principals
        own_namespace = (Pattern(self._namespace),) if means_own else ()
        own_domain = (Pattern(self._trust_domain),) if means_own and self._trust_domain is not None else ()
        return Callers(
            apps=self._patterns((*place, "apps"), written.apps),
            namespaces=self._patterns((*place, "namespaces"), written.namespaces) or own_namespace,
            trust_domains=self._patterns((*place, "trustDomains"), written.trust_domains) or own_domain,
            principals=self._patterns((*place, "principals"), written.principals),
        )

    def _patterns(self, place: Place, texts: Sequence[str]) -> tuple[Pattern, ...]:
        made: list[Pattern] = []
        for number, text in enumerate(texts):
            starts, ends = text.endswith("*"), text.startswith("*")
            inner = text[:-1] if starts else text[1:] if ends else text
            if not text or "*" in inner:
                self._spot.fault(
                    (*place, number),
                    f"`{text}` is not a pattern (expected a text, or one with `*` at one end)",
                )
            elif place[-1] == "principals" and not ends and not inner.startswith("spiffe://"):
                self._spot.fault(
                    (*place, number),
                    f"`{text}` is not a SPIFFE ID (expected spiffe://DOMAIN/ns/NAMESPACE/APP)",
                )
            made.append(Pattern(inner, starts=starts, ends=ends and not starts))
        return tuple(made)

    def _methods(self, place: Place, to: own_schema.To) -> frozenset[str]:
        if self._document.has(place) and not to.methods:
            self._spot.fault(place, "is empty (expected a verb, or leave it out)")
        if to.methods and to.grpc is not None:
            self._spot.fault(place, "are verbs of HTTP, and the rule is for gRPC (expected one of both)")
        for number, verb in enumerate(to.methods):
            if verb != "*" and _VERB.fullmatch(verb) is None:
                problem = (
                    f'`{verb}` is not a verb (expected upper case, such as {verb.upper() or "GET"}, or "*")'
                )
                self._spot.fault((*place, number), problem)
            elif verb != "*" and verb not in KNOWN_VERBS:
                self._spot.warn((*place, number), f"{verb} is not one of RFC 9110's verbs")
        return frozenset() if "*" in to.methods else frozenset(to.methods)

    def _paths(self, place: Place, to: own_schema.To) -> list[str]:
        if self._document.has(place) and not to.paths:
            self._spot.fault(place, "is empty (expected a path, or leave it out)")
        for number, path in enumerate(to.paths):
            problem = fault_of_template(path)
            if problem is not None:
                self._spot.fault((*place, number), f"{path or '``'} {problem}")
        return list(to.paths)

    def _grpc(self, place: Place, to: own_schema.To) -> list[str]:
        if to.grpc is None:
            return []
        if to.paths:
            self._spot.fault(place, "is beside paths (expected one of both in a rule)")
        if not to.grpc.services:
            self._spot.fault((*place, "services"), 'is missing (expected services such as shop.Cart, or "*")')
        for number, service in enumerate(to.grpc.services):
            if not service or _SERVICE.fullmatch(service) is None:
                problem = f"`{service}` is not a service (expected package.Service, or one that ends in `*`)"
                self._spot.fault((*place, "services", number), problem)
        for number, method in enumerate(to.grpc.methods):
            if method != "*" and _METHOD.fullmatch(method) is None:
                self._spot.fault(
                    (*place, "methods", number), f'`{method}` is not a method (expected a name, or "*")'
                )
        methods = [ONE if method == "*" else method for method in to.grpc.methods or ["*"]]
        return [f"/{service}/{method}" for service in to.grpc.services for method in methods]

    def headers(self, place: Place, wanted: Mapping[str, Sequence[str]], into: PolicySet) -> tuple[int, ...]:
        """The conditions of `when.header` of the rule at a place, which go into a set, by number."""
        made: list[HeaderCondition] = []
        for name, values in wanted.items():
            spot: Place = (*place, "when", "header", name)
            if _FIELD.fullmatch(name) is None or name.lower() in _SECRET_HEADERS:
                self._spot.fault(spot, "is not a header for rules (expected another one)")
            if not values or not all(value and value.isascii() for value in values):
                self._spot.fault(spot, "has no values (expected texts of ASCII)")
            made.append(HeaderCondition(name.lower().encode(), frozenset(value.encode() for value in values)))
        return tuple(into.headers.setdefault(one, len(into.headers)) for one in made)


def fault_of_template(path: str) -> str | None:
    """What is wrong with a path of a rule."""
    if not path.startswith("/"):
        return "is not a path (expected one that begins with /)"
    if len(path) > MAX_TEMPLATE_CHARS:
        return f"is too long (expected at most {MAX_TEMPLATE_CHARS} characters)"
    if _NEVER.search(path) is not None:
        return "never fits (write the path decoded and clean, without ?, #, ;, %, \\, // or ..)"
    segments = path.strip("/").split("/")
    if REST in segments[:-1]:
        return f"has {REST} before its end (expected it as the last segment; {ONE} is any one segment)"
    if any(segment not in (ONE, REST) and re.search(r"[*{}]", segment) for segment in segments):
        return f"holds `*` or braces within a segment (expected {ONE} for any one segment, {REST} for all that follow)"
    return None
