"""`spec.accessControl` of one or more Configurations -> AccessRules; every fault at once.

Strict by design: what Dapr ignores or guesses is a fault here. A fault is lenient only if Dapr's answer to it is deny.
"""

import re
from collections.abc import Sequence

from msgspec import Struct

from policies.reading import schema
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings
from policies.reading.rule_checks import check_pattern, check_reach
from policies.rules.access import KNOWN_VERBS, AccessRules, CallerRules, Profile, Rule, without_policy
from policies.rules.access_policies import PolicyMode
from policies.rules.caller import Caller
from policies.rules.matcher import PathTable, path_table

MAX_PATTERN_CHARS = 2048  # longer than any path that the edge lets through
MAX_RULES = 10_000  # of one sidecar; classifying a path stays under a millisecond

_ACCESS: Place = ("spec", "accessControl")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_VERB = re.compile(r"[A-Z][A-Z0-9_-]*")


class AccessContext(Struct, frozen=True, kw_only=True):
    """Whose access control this is. injects_faults: those of Traffic documents have an effect."""

    own_app_id: str
    own_namespace: str
    own_trust_domain: str | None
    is_trust_domain_given: bool = True  # False: `accessControl.trustDomain` names it
    app_protocol: str
    profile: Profile
    mtls: bool
    access_policy_mode: PolicyMode = "enforce"  # the most that AccessPolicies may be in, whatever each says
    injects_faults: bool = True

    @property
    def judges_verbs(self) -> bool:
        """Whether verbs count and case doesn't: for HTTP apps, as in Dapr."""
        return self.app_protocol not in {"grpc", "grpcs"}


class _Merged(Struct):
    """accessControl of all files, decoded one over the other: scalars replace scalars, a list the whole list."""

    default_action: str | None = None
    trust_domain: str = "public"
    trust_domain_home: Document | None = None
    policies: Sequence[schema.Policy] | None = None
    home: Document | None = None
    default_home: Document | None = None


def compile_access(
    documents: Sequence[tuple[Document, schema.Configuration]],
    context: AccessContext,
    findings: Findings,
) -> AccessRules:
    """The rules of Configurations in the order of their files. Faults go to `findings`; the rules then mean nothing."""
    merged = _merge(documents)
    own_trust_domain = _own_trust_domain(merged, context, findings)
    if merged.default_action is None and not merged.policies:
        return without_policy(
            profile=context.profile,
            own_app_id=context.own_app_id,
            own_namespace=context.own_namespace,
            own_trust_domain=own_trust_domain,
            mtls=context.mtls,
        )
    if merged.policies and merged.home is not None and not context.mtls:
        text = "never apply, since mTLS is off and no caller proves who it is: defaultAction decides for all"
        findings.warn(merged.home, (*_ACCESS, "policies"), text)
    return AccessRules(
        default_allow=_global_default(merged, context, findings),
        own_app_id=context.own_app_id,
        own_namespace=context.own_namespace,
        own_trust_domain=own_trust_domain,
        trusts_all=context.profile == "daprd",
        judges_verbs=context.judges_verbs,
        callers=_callers(merged, context, findings),
    )


def _merge(documents: Sequence[tuple[Document, schema.Configuration]]) -> _Merged:
    merged = _Merged()
    for document, configuration in documents:
        access = configuration.spec.access_control
        if document.has((*_ACCESS, "defaultAction")):
            merged.default_action, merged.default_home = access.default_action, document
        if document.has((*_ACCESS, "trustDomain")):
            merged.trust_domain, merged.trust_domain_home = access.trust_domain, document
        if document.has((*_ACCESS, "policies")):
            merged.policies, merged.home = access.policies, document
    return merged


def _own_trust_domain(merged: _Merged, context: AccessContext, findings: Findings) -> str | None:
    """The file's where no flag names it; an identity keeps its name until the sidecar starts anew."""
    home, written = merged.trust_domain_home, merged.trust_domain
    if home is None or not written:
        return context.own_trust_domain
    place: Place = (*_ACCESS, "trustDomain")
    if _TRUST_DOMAIN.fullmatch(written) is None:
        findings.fault(
            home, place, f"invalid trust domain `{written}` (expected a-z, 0-9, dot, dash, underscore)"
        )
        return context.own_trust_domain
    if context.own_trust_domain in {None, written}:
        return context.own_trust_domain
    if not context.is_trust_domain_given:
        return written
    findings.warn(
        home,
        place,
        f"has no effect: ours is {context.own_trust_domain}, by --trust-domain or since the start of this sidecar",
    )
    return context.own_trust_domain


def _global_default(merged: _Merged, context: AccessContext, findings: Findings) -> bool:
    if merged.default_action is None:
        if merged.home is not None:
            text = (
                "policies without a defaultAction deny all other callers (write defaultAction: deny or allow)"
            )
            findings.warn(merged.home, _ACCESS, text)
        return False
    home = merged.default_home
    if home is None:
        return False
    place: Place = (*_ACCESS, "defaultAction")
    if merged.default_action == "":
        is_nothing = merged.policies is None and not merged.trust_domain
        if is_nothing or (merged.policies is not None and not merged.policies):
            findings.fault(home, place, "is empty, without policies (expected allow or deny)")
        return False
    is_allow = _action(home, place, merged.default_action, findings)
    if is_allow and not context.mtls:
        findings.warn(home, place, "also admits callers that prove no identity, since mTLS is off")
    return is_allow


def _action(document: Document, place: Place, text: str, findings: Findings) -> bool:
    """Whether an action is allow. Anything that isn't either word is deny to Dapr, so the fault is lenient."""
    if text.lower() not in {"allow", "deny"}:
        findings.fault(
            document, place, f"`{text}` is not an action (expected allow or deny)", is_lenient=True
        )
    return text.lower() == "allow"


def _callers(merged: _Merged, context: AccessContext, findings: Findings) -> dict[Caller, CallerRules]:
    callers: dict[Caller, CallerRules] = {}
    home = merged.home
    if home is None or merged.policies is None:
        return callers
    if sum(len(policy.operations) for policy in merged.policies) > MAX_RULES:
        findings.fault(
            home, (*_ACCESS, "policies"), f"has too many operations (expected at most {MAX_RULES})"
        )
        return callers
    is_global_allow = (merged.default_action or "deny").lower() == "allow"
    written = {
        Caller(trust_domain=policy.trust_domain, namespace=policy.namespace, app_id=policy.app_id): number
        for number, policy in enumerate(merged.policies)
    }
    last = {(caller.app_id, caller.namespace): caller for caller in written}
    for number, policy in enumerate(merged.policies):
        place: Place = (*_ACCESS, "policies", number)
        caller = Caller(trust_domain=policy.trust_domain, namespace=policy.namespace, app_id=policy.app_id)
        _check_caller(home, place, caller, findings)
        entry = _Entry(document=home, place=place, context=context, findings=findings)
        is_shadowed = last[caller.app_id, caller.namespace] != caller
        rules = entry.compile(policy, is_global_allow=is_global_allow, is_shadowed=is_shadowed)
        if caller in callers:
            final = merged.policies[written[caller]]
            problem = f"is a second entry for {caller.app_id} (expected one entry for a caller)"
            findings.fault(
                home, place, problem, is_lenient=_denies_all(final, is_global_allow=is_global_allow)
            )
        callers[caller] = rules
    return callers


def _denies_all(policy: schema.Policy, *, is_global_allow: bool) -> bool:
    default = policy.default_action.lower() or ("allow" if is_global_allow else "deny")
    return default != "allow" and all(operation.action.lower() != "allow" for operation in policy.operations)


def _check_caller(document: Document, place: Place, caller: Caller, findings: Findings) -> None:
    fields = {"appId": caller.app_id, "namespace": caller.namespace, "trustDomain": caller.trust_domain}
    for key, value in fields.items():
        if not value:
            findings.fault(document, (*place, key), "is empty (expected the caller's own)")
        elif "*" in value:
            findings.warn(document, (*place, key), "`*` is not a wildcard here, so this fits no caller")


class _Entry(Struct):
    """One entry of `policies` while it is compiled."""

    document: Document
    place: Place
    context: AccessContext
    findings: Findings

    def compile(self, policy: schema.Policy, *, is_global_allow: bool, is_shadowed: bool) -> CallerRules:
        default: bool | None = None
        if policy.default_action:
            default = _action(
                self.document, (*self.place, "defaultAction"), policy.default_action, self.findings
            )
        rules = tuple(self.rule(number, operation) for number, operation in enumerate(policy.operations))
        table = self.table(rules, policy.operations)
        self.check_names(rules)
        is_allow = is_global_allow if default is None else default
        operations: Place = (*self.place, "operations")
        check_reach(
            self.document, operations, rules, table, is_default_allow=is_allow, findings=self.findings
        )
        return CallerRules(
            policy=policy.app_id,
            default_allow=default,
            rules=rules,
            table=table,
            is_shadowed=is_shadowed,
        )

    def rule(self, number: int, operation: schema.Operation) -> Rule:
        place: Place = (*self.place, "operations", number)
        if not self.document.has((*place, "name")):
            self.findings.fault(self.document, place, "has no name (expected a path, such as /orders)")
        is_allow = False
        if operation.action or self.document.has((*place, "action")):
            is_allow = _action(self.document, (*place, "action"), operation.action, self.findings)
        else:
            self.findings.fault(
                self.document, place, "has no action (expected allow or deny)", is_lenient=True
            )
        pattern = operation.name if operation.name.startswith("/") else "/" + operation.name
        if len(pattern) > MAX_PATTERN_CHARS:
            problem = f"is too long (expected at most {MAX_PATTERN_CHARS} characters)"
            self.findings.fault(self.document, (*place, "name"), problem)
        rule = Rule(pattern=pattern, verbs=self.verbs(place, operation, is_allow=is_allow), is_allow=is_allow)
        check_pattern(self.document, (*place, "name"), rule, self.findings)
        return rule

    def verbs(self, place: Place, operation: schema.Operation, *, is_allow: bool) -> frozenset[str]:
        """The verbs that count. A deny that would fit none is a fault that nothing forgives."""
        kept: set[str] = set()
        for number, verb in enumerate(operation.http_verb):
            if verb == "*" or verb in KNOWN_VERBS:
                kept.add(verb)
                continue
            spot: Place = (*place, "httpVerb", number)
            if _VERB.fullmatch(verb) is None:
                problem = (
                    f'`{verb}` is not a verb (expected upper case, such as {verb.upper() or "GET"}, or "*")'
                )
            else:
                problem = (
                    f'`{verb}` is matched only by "*" (expected one of {", ".join(sorted(KNOWN_VERBS))})'
                )
            self.findings.fault(self.document, spot, problem, is_lenient=is_allow)
        if not operation.http_verb and self.context.judges_verbs:
            text = (
                "without httpVerb an allow admits nothing"
                if is_allow
                else "without httpVerb denies every verb"
            )
            self.findings.warn(self.document, place, f'{text} (write httpVerb: ["*"])')
        return frozenset(kept)

    def table(self, rules: Sequence[Rule], operations: Sequence[schema.Operation]) -> PathTable:
        everything = frozenset({"*"})
        verbs = [
            everything
            if not self.context.judges_verbs or (not rule.is_allow and not operation.http_verb)
            else rule.verbs
            for rule, operation in zip(rules, operations, strict=True)
        ]
        return path_table([rule.pattern for rule in rules], verbs, fold_case=self.context.judges_verbs)

    def check_names(self, rules: Sequence[Rule]) -> None:
        """A second rule of one name is dropped by Dapr; forgiven where what is lost is an allow."""
        seen: dict[str, int] = {}
        for number, rule in enumerate(rules):
            name = rule.pattern.lower() if self.context.judges_verbs else rule.pattern
            if name in seen:
                line = self.document.line_of((*self.place, "operations", seen[name]))
                self.findings.fault(
                    self.document,
                    (*self.place, "operations", number, "name"),
                    f"{rule.pattern} is named again (first on line {line}; expected one operation with all its verbs)",
                    is_lenient=rule.is_allow,
                )
            seen.setdefault(name, number)
