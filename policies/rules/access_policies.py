"""May this caller do this, by the AccessPolicies? Frozen rules, and the decision; pure.

A rule that denies comes before all that allow, and what no rule allows has the default, which is to deny. A path is judged in every way
that an app may read it, and each of them must be allowed. Of an allowed call, the verdict names the authorizers that rules want asked.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple, get_args

from msgspec import Struct, field

from policies.rules.authorizers import ExternalAuthorizer
from policies.rules.caller import Caller
from policies.rules.path_readings import readings
from policies.rules.templates import Met, TemplateTable, template_table
from policies.rules.tokens import KeySource, TokenCondition, TokenIssuer, VerifiedToken

PolicyMode = Literal["off", "audit", "enforce"]
MODES: Final[tuple[PolicyMode, ...]] = get_args(PolicyMode)
"""From the one that does least."""

HasHeader = Callable[[int], bool]
"""Whether a call meets a header condition, by its number."""


class Pattern(NamedTuple):
    """A text, or one that begins (`starts`) or ends with it."""

    text: str
    starts: bool = False
    ends: bool = False

    def fits(self, value: str) -> bool:
        """Whether a value is meant."""
        if self.starts:
            return value.startswith(self.text)
        return value.endswith(self.text) if self.ends else value == self.text


class Callers(Struct, frozen=True, kw_only=True):
    """Whom a rule is about: one of each field that is not empty. anonymous: those who prove no identity, and nobody else."""

    anonymous: bool = False
    apps: tuple[Pattern, ...] = ()
    namespaces: tuple[Pattern, ...] = ()
    trust_domains: tuple[Pattern, ...] = ()
    principals: tuple[Pattern, ...] = ()

    def has(self, caller: Caller | None) -> bool:
        """Whether a caller is meant; None: one without an identity."""
        if caller is None or self.anonymous:
            return self.anonymous and caller is None
        fields = (
            (self.apps, caller.app_id),
            (self.namespaces, caller.namespace),
            (self.trust_domains, caller.trust_domain),
            (self.principals, caller.principal),
        )
        return all(not wanted or any(one.fits(value) for one in wanted) for wanted, value in fields)


class PolicyRule(Struct, frozen=True, kw_only=True):
    """One rule of the policy of that name. It allows, denies, or (`asks`) has an authorizer asked about what other rules allow.

    What is written as one rule that authorizes is two: one that asks, read as widely as a denial, and one that allows.
    methods: verbs, empty for any. templates: numbers in the table of the set, None for any path. is_grpc: for gRPC calls alone.
    headers: conditions of the set by number, all of which must hold. token: what is asked of the user's token, None for nothing.
    """

    policy: str
    name: str
    is_allow: bool
    callers: Callers = Callers()
    methods: frozenset[str] = frozenset()
    templates: frozenset[int] | None = None
    is_grpc: bool = False
    headers: tuple[int, ...] = ()
    token: TokenCondition | None = None
    asks: str = ""


class Asked(NamedTuple):
    """What a decision is about. is_self: an app calls itself, which it may where no rule denies it.

    paths: what each reading of the path meets, None where it can't be judged. token: the verified one that came with the call.
    """

    caller: Caller | None
    is_self: bool
    method: str
    is_grpc: bool
    paths: tuple[Met, ...] | None
    has_header: HasHeader
    token: VerifiedToken | None = None


class PolicyVerdict(NamedTuple):
    """The answer; policy and rule are empty where none decided. authorizers: names of those to ask, in order, where it is allowed."""

    allowed: bool
    policy: str = ""
    rule: str = ""
    is_unreadable: bool = False
    authorizers: tuple[str, ...] = ()


class HeaderCondition(NamedTuple):
    """A header (lower-case) of which one line is one of these values."""

    name: bytes
    values: frozenset[bytes]


class PolicyRules(Struct, frozen=True, kw_only=True):
    """The rules of all policies that are in force together. Made by `policy_rules`.

    aliases: what our own trust domain is also called; callers of theirs count as of `own_trust_domain`. issuers: whose tokens count.
    authorizers: whom rules may have asked.
    """

    rules: tuple[PolicyRule, ...] = ()
    default_allow: bool = False
    table: TemplateTable = field(default_factory=lambda: template_table(()))
    headers: tuple[HeaderCondition, ...] = ()
    aliases: frozenset[str] = frozenset()
    own_trust_domain: str | None = None
    issuers: tuple[TokenIssuer, ...] = ()
    authorizers: tuple[ExternalAuthorizer, ...] = ()
    _by_template: Mapping[int, tuple[int, ...]] = {}
    _of_any_path: tuple[int, ...] = ()

    def trusts(self, trust_domain: str) -> bool:
        """Whether a rule speaks of callers of a trust domain that may not be our own."""
        if trust_domain in self.aliases:
            return True
        return any(
            rule.is_allow
            and not rule.callers.anonymous
            and any(
                one.fits(trust_domain)
                for one in (*rule.callers.trust_domains, *map(_domain_of, rule.callers.principals))
            )
            for rule in self.rules
        )

    def evaluate(self, asked: Asked) -> PolicyVerdict:
        """The decision: a reading of the path that is denied decides, else they are all allowed."""
        paths = asked.paths
        if paths is None:
            return PolicyVerdict(allowed=False, is_unreadable=True)
        caller = asked.caller
        if caller is not None and caller.trust_domain in self.aliases and self.own_trust_domain is not None:
            asked = asked._replace(caller=caller._replace(trust_domain=self.own_trust_domain))
        verdicts = [self._judge(met, asked) for met in paths]
        denied = [verdict for verdict in verdicts if not verdict.allowed]
        if denied:  # which rule denies says more than that none allows
            return next((one for one in denied if one.rule), denied[0])
        asks = tuple({name: None for verdict in verdicts for name in verdict.authorizers})
        return verdicts[-1]._replace(authorizers=asks)

    def meeting(self, asked: Asked) -> tuple[PolicyRule, ...]:
        """All rules that speak of a call, whatever their action, by any reading of its path; of one that can't be judged, those of all."""
        numbers: Iterable[int] = range(len(self.rules))
        if asked.paths is not None:
            met = {one for reading in asked.paths for one in reading}
            numbers = sorted(
                {*self._of_any_path, *(n for one in met for n in self._by_template.get(one, ()))}
            )
        return tuple(self.rules[number] for number in numbers if _meets(self.rules[number], asked))

    def denied_reading(self, path: str, asked: Asked) -> str:
        """Of a denied call: the first reading of its path that is denied as the whole is; "" where no path turns the decision."""
        if not self.table:
            return ""
        found = readings(path) or ()
        verdict = self.evaluate(asked._replace(paths=tuple(self.table.met(one) for one in found) or None))
        alone = (self.evaluate(asked._replace(paths=(self.table.met(one),))) for one in found)
        return next((one for one, each in zip(found, alone, strict=True) if each == verdict), "")

    def _judge(self, met: Met, asked: Asked) -> PolicyVerdict:
        allowing: PolicyRule | None = None
        asks: list[str] = []
        for number in sorted(
            {*self._of_any_path, *(n for one in met for n in self._by_template.get(one, ()))}
        ):
            rule = self.rules[number]
            if (allowing is not None and rule.is_allow) or not _meets(rule, asked):
                continue
            if rule.asks:
                asks.append(rule.asks)
            elif not rule.is_allow:
                return PolicyVerdict(allowed=False, policy=rule.policy, rule=rule.name)
            else:
                allowing = rule
        if allowing is None:
            is_allowed = self.default_allow or asked.is_self
            return PolicyVerdict(allowed=is_allowed, authorizers=tuple(asks) if is_allowed else ())
        return PolicyVerdict(True, allowing.policy, allowing.name, authorizers=tuple(asks))


class AccessPolicies(Struct, frozen=True):
    """Those that decide, and those that only tell what they would have denied; None where there are none."""

    enforced: PolicyRules | None = None
    audited: PolicyRules | None = None

    @property
    def key_sources(self) -> tuple[KeySource, ...]:
        """Where the keys are that tokens are verified with."""
        sets = (self.enforced, self.audited)
        return tuple({one.keys: None for rules in sets if rules is not None for one in rules.issuers})

    @property
    def authorizers(self) -> tuple[ExternalAuthorizer, ...]:
        """Whom rules in force may have asked; what is only audited asks nobody."""
        return () if self.enforced is None else self.enforced.authorizers


def policy_rules(
    rules: Iterable[PolicyRule],
    *,
    default_allow: bool,
    table: TemplateTable,
    headers: tuple[HeaderCondition, ...],
    aliases: frozenset[str],
    own_trust_domain: str | None,
    issuers: tuple[TokenIssuer, ...] = (),
    authorizers: tuple[ExternalAuthorizer, ...] = (),
) -> PolicyRules:
    """The rules with what finds them by a path; denying ones first, as they decide first, then those that ask."""
    ordered = tuple(sorted(rules, key=lambda rule: (rule.is_allow, bool(rule.asks))))
    by_template: dict[int, list[int]] = {}
    for number, rule in enumerate(ordered):
        for template in rule.templates or ():
            by_template.setdefault(template, []).append(number)
    return PolicyRules(
        rules=ordered,
        default_allow=default_allow,
        table=table,
        headers=headers,
        aliases=aliases,
        own_trust_domain=own_trust_domain,
        issuers=issuers,
        authorizers=authorizers,
        _by_template={template: tuple(numbers) for template, numbers in by_template.items()},
        _of_any_path=tuple(number for number, rule in enumerate(ordered) if rule.templates is None),
    )


def _meets(rule: PolicyRule, asked: Asked) -> bool:
    return (
        rule.callers.has(asked.caller)
        and (not rule.methods or asked.method in rule.methods)
        and (asked.is_grpc or not rule.is_grpc)
        and all(asked.has_header(number) for number in rule.headers)
        and (rule.token is None or rule.token.holds(asked.token))
    )


def _domain_of(principal: Pattern) -> Pattern:
    """The trust domains that callers of a principal may be of."""
    if principal.ends:  # `*…` names none
        return Pattern("\0")
    domain, slash, _ = principal.text.removeprefix("spiffe://").partition("/")
    return Pattern(domain, starts=principal.starts and not slash)
