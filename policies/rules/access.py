"""May this caller do this? Frozen rules, and the decision; pure.

An answer is allow only if two readings of the policy allow: Dapr's own algorithm, and the safe one, in which the most
specific rule wins, a deny wins among equals, and a rule for `/a` covers everything below it. Nothing here reads YAML:
`compile_access.py` makes the rules of a document, `without_policy` those of none.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct, field

from policies.rules.access_policies import AccessPolicies
from policies.rules.caller import Caller
from policies.rules.matcher import UNREADABLE, Candidate, PathTable
from policies.rules.path_readings import readings

Profile = Literal["dev", "production", "daprd"]
Protocol = Literal["http", "grpc"]

KNOWN_VERBS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
"""The verbs that a rule can name. Source: Dapr `HTTPExtension.Verb`."""


class Operation(Struct, frozen=True, kw_only=True):
    """What is asked for: the verb as sent (empty: unknown; gRPC has none), and the path as sent."""

    protocol: Protocol
    verb: str
    path: str


Reason: TypeAlias = Literal[
    "no-policy",
    "no-id",
    "self",
    "own-namespace",
    "rule",
    "default-app",
    "default-global",
    "bad-path",
    "no-verb",
    "trust-domain",
    "no-rule",
]
DENIALS: Mapping[Reason, str] = {
    "rule": "an operation denies the path, or a way in which an app could read it; the log names them as `rule` and `read_as`",
    "bad-path": "an app could read the path in a way that can't be judged, or in too many, and operations name paths for this caller",
    "default-app": "no operation of the caller's entry fits, and the entry's `defaultAction` is deny",
    "default-global": "no entry names the caller, or its entry has no `defaultAction`, and that of the policy is deny",
    "no-policy": "no access policy is configured, and the profile denies: production does",
    "no-id": "the caller proved no identity, and the policy's `defaultAction` is deny",
    "trust-domain": "the caller is of a trust domain that is not our own and that no entry names",
    "no-rule": "no rule of the access policies allows the call, and their default is deny",
    "no-verb": "the call names no HTTP verb, and the app is judged by verbs",
}


class AccessDecision(Struct, frozen=True, kw_only=True):
    """The answer and why.

    `reason` is one of `DENIALS`, or of an allowed call `self` or `own-namespace`. `policy` is the app-id of the entry, or the name of
    the AccessPolicy, that was read and `rule` the pattern or the name of the rule that decided, both empty where there is none.
    `would_deny`: policy/rule by which audited policies would have denied the call, `would_ask` whom they would have asked about it.
    `authorizers`: external ones that an allowed call waits for. `scope` is `app` where the entry has a default of
    its own, `global` where the global one stands behind the answer, else empty.
    """

    allowed: bool
    reason: Reason
    policy: str = ""
    rule: str = ""
    scope: Literal["", "app", "global"] = ""
    would_deny: str = ""
    authorizers: tuple[str, ...] = ()
    would_ask: tuple[str, ...] = ()


class Rule(Struct, frozen=True, kw_only=True):
    """One operation of a policy. `verbs` may hold `*`; empty fits no verb. A gRPC app's rules ignore verbs."""

    pattern: str
    verbs: frozenset[str]
    is_allow: bool


class CallerRules(Struct, frozen=True, kw_only=True):
    """What one caller may do. `table` holds the patterns of `rules` in their order.

    `is_shadowed`: a later entry for the same app-id and namespace but another trust domain takes its place in Dapr's
    reading, which then has only the global default for this caller.
    """

    policy: str
    default_allow: bool | None
    rules: tuple[Rule, ...]
    table: PathTable
    is_shadowed: bool = False


class AccessRules(Struct, frozen=True, kw_only=True):
    """All of one app's access control. Made by `compile.py` or `without_policy`.

    `own_trust_domain` None takes any trust domain for the own one. `trusts_all`: a default of allow is for callers of every
    trust domain, as with daprd; else for those of the own one, and of those that an entry names.
    """

    default_allow: bool
    is_off: bool = False
    profile: Profile | None = None  # set where no document says anything, and the profile alone decides
    own_app_id: str = ""
    own_namespace: str = ""
    own_trust_domain: str | None = None
    trusts_all: bool = False
    admits_own_namespace: bool = False
    judges_verbs: bool = True
    callers: Mapping[Caller, CallerRules] = field(default_factory=dict)
    policies: AccessPolicies = AccessPolicies()

    @property
    def verbs(self) -> frozenset[str]:
        """The verbs to tell apart; all others lead to the same decision as one another."""
        named = frozenset(
            verb
            for rules in self.callers.values()
            for rule in rules.rules
            for verb in rule.verbs
            if verb != "*"
        )
        # An unknown verb is a POST in Dapr's reading: then the known ones must be told from it.
        return KNOWN_VERBS if "POST" in named else named

    def trusts(self, trust_domain: str) -> bool:
        """Whether callers of this trust domain are let in, to be judged: it is our own, or an entry or a policy names it."""
        if self.own_trust_domain in {None, trust_domain} or (self.trusts_all and self.default_allow):
            return True
        if any(caller.trust_domain == trust_domain for caller in self.callers):
            return True
        return self.policies.enforced is not None and self.policies.enforced.trusts(trust_domain)

    def evaluate(self, caller: Caller | None, operation: Operation) -> AccessDecision:
        """The decision for one call. `caller` is None for a peer without a proven identity."""
        table = self.table(caller)
        classes = table.classes(operation.path) if table is not None else ()
        return self.decide(caller, classes, operation.verb, operation.protocol)

    def table(self, caller: Caller | None) -> PathTable | None:
        """The patterns that paths of this caller are classified by; None if no path changes its decision."""
        if self.is_off or caller is None or (rules := self.callers.get(caller)) is None or not rules.rules:
            return None
        return rules.table

    def decide(
        self, caller: Caller | None, classes: tuple[int, ...], verb: str, protocol: Protocol
    ) -> AccessDecision:
        """The decision for every path of these classes, which all must be allowed; ignored where `table` gives None."""
        if self.is_off:
            return AccessDecision(allowed=True, reason="no-policy")
        if caller is None:
            reason: Reason = "no-id" if self.profile is None else "no-policy"
            return AccessDecision(allowed=self.default_allow, reason=reason, scope="global")
        rules = self.callers.get(caller)
        if rules is None:
            return self._without_entry(caller)
        found = self._judge(rules, classes[0] if classes else UNREADABLE, verb, protocol)
        for path_class in classes[1:]:
            if not found.allowed:
                break
            found = self._judge(rules, path_class, verb, protocol)
        return found

    def denied_reading(self, caller: Caller | None, operation: Operation) -> str:
        """Of a denied call: the first reading of its path that the rules deny; "" where no path turns the decision."""
        table = self.table(caller)
        if table is None:
            return ""
        for reading in readings(operation.path) or ():
            classes = (table.classify(reading),)
            if not self.decide(caller, classes, operation.verb, operation.protocol).allowed:
                return reading
        return ""

    def _without_entry(self, caller: Caller) -> AccessDecision:
        if not self.trusts(caller.trust_domain):
            return AccessDecision(allowed=False, reason="trust-domain", scope="global")
        if caller.namespace == self.own_namespace and self.own_trust_domain in {None, caller.trust_domain}:
            if caller.app_id == self.own_app_id:
                return AccessDecision(allowed=True, reason="self")
            if self.admits_own_namespace:
                return AccessDecision(allowed=True, reason="own-namespace")
        reason: Reason = "default-global" if self.profile is None else "no-policy"
        return AccessDecision(allowed=self.default_allow, reason=reason, scope="global")

    def _judge(self, rules: CallerRules, path_class: int, verb: str, protocol: Protocol) -> AccessDecision:
        if self.judges_verbs:
            verb = verb or ("POST" if protocol == "grpc" else "")
            if verb in {"", "NONE"}:
                return AccessDecision(
                    allowed=False, reason="no-verb", policy=rules.policy, scope=_scope(rules)
                )
        if rules.rules and path_class == UNREADABLE:
            return AccessDecision(allowed=False, reason="bad-path", policy=rules.policy, scope=_scope(rules))
        walked, candidates = rules.table.outcome(path_class) if rules.rules else (-1, ())
        safe = self._read_safely(rules, candidates, verb)
        if not safe.allowed:
            return safe
        daprs = self._read_as_dapr(rules, walked, verb)
        return safe if daprs.allowed else daprs

    def _read_as_dapr(self, rules: CallerRules, walked: int, verb: str) -> AccessDecision:
        if rules.is_shadowed:
            return AccessDecision(allowed=self.default_allow, reason="default-global", scope="global")
        if walked < 0:
            return self._default(rules)
        rule = rules.rules[walked]
        if self.judges_verbs:
            known = verb if verb in KNOWN_VERBS else "POST"
            if known not in rule.verbs and "*" not in rule.verbs:
                return self._default(rules)
        return _by_rule(rules, walked)

    def _read_safely(
        self, rules: CallerRules, candidates: tuple[Candidate, ...], verb: str
    ) -> AccessDecision:
        table = rules.table
        fitting = [one for one in candidates if "*" in table.verbs[one.rule] or verb in table.verbs[one.rule]]
        if not fitting:
            return self._default(rules)
        allows = [one for one in fitting if rules.rules[one.rule].is_allow]
        for one in fitting:
            if not rules.rules[one.rule].is_allow and not any(table.is_over(allow, one) for allow in allows):
                return _by_rule(rules, one.rule)
        top = next(one for one in allows if not any(table.is_over(other, one) for other in allows))
        return _by_rule(rules, top.rule)

    def _default(self, rules: CallerRules) -> AccessDecision:
        if rules.default_allow is None:
            return AccessDecision(
                allowed=self.default_allow,
                reason="default-global",
                policy=rules.policy,
                scope="global",
            )
        return AccessDecision(
            allowed=rules.default_allow, reason="default-app", policy=rules.policy, scope="app"
        )


def _by_rule(rules: CallerRules, number: int) -> AccessDecision:
    rule = rules.rules[number]
    return AccessDecision(
        allowed=rule.is_allow,
        reason="rule",
        policy=rules.policy,
        rule=rule.pattern,
        scope=_scope(rules),
    )


def _scope(rules: CallerRules) -> Literal["app", "global"]:
    return "global" if rules.default_allow is None else "app"


def without_policy(
    *,
    profile: Profile,
    own_app_id: str,
    own_namespace: str,
    own_trust_domain: str | None = None,
    mtls: bool,
) -> AccessRules:
    """The posture where no document says anything.

    `daprd` admits everybody; `dev` its own namespace, or everybody where mTLS was turned off and nobody has an
    identity; `production` nobody but the app itself.
    """
    is_off = profile == "daprd" or (profile == "dev" and not mtls)
    return AccessRules(
        default_allow=is_off,
        is_off=is_off,
        profile=profile,
        own_app_id=own_app_id,
        own_namespace=own_namespace,
        own_trust_domain=own_trust_domain,
        trusts_all=profile == "daprd",
        admits_own_namespace=profile == "dev",
    )
