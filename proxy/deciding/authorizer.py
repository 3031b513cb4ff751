"""Asks the access rules of one policy generation, through pushed path tables, so that a decision can be kept. Pure."""

from collections import defaultdict
from collections.abc import Hashable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.access import AccessDecision, AccessRules, Operation, Profile, Protocol, Reason
from policies.rules.access_policies import PolicyVerdict
from policies.rules.caller import Caller
from policies.rules.matcher import PathTable
from policies.rules.tokens import VerifiedToken
from proxy import errors
from proxy.contract.head import Form, RequestHead
from proxy.contract.plan import Cause, Hold, Labels, Reply, Surface
from proxy.contract.recording import RecordingHead, Shape, Table
from proxy.deciding.callee import FIRST_ACCESS_TABLE, FIRST_POLICY_SET, ForwardedPaths
from proxy.deciding.peer import caller_of
from proxy.deciding.policy_judge import FORMS, PolicyJudge
from proxy.deciding.remote import NothingFetched, Remote
from proxy.deciding.tokens import NOBODY, Tokens, Users
from proxy.wire.target import as_forwarded

_FORMS: tuple[Form, ...] = ("whole", "method")


class AccessPaths(Struct, frozen=True):
    """A caller's rules as a pushed table."""

    table: PathTable

    @property
    def shape(self) -> Shape:
        """The rules, for an engine that reads them itself."""
        return Shape(kind="access", rules=self.table.rules, fold_case=self.table.fold_case)

    def classify(self, path: str) -> Hashable:
        """The classes of a path's readings under the rules."""
        return self.table.classes(path)


class Authorizer:
    """Access rules and the numbers under which their tables are pushed; replaced whole at each policy change."""

    def __init__(
        self,
        rules: AccessRules,
        first_table: int = FIRST_ACCESS_TABLE,
        remote: Remote = NothingFetched(),  # noqa: B008 - it has no state
    ) -> None:
        self.rules = rules
        own = (rules.own_app_id, rules.own_namespace)
        selves = [caller for caller in rules.callers if (caller.app_id, caller.namespace) == own]
        self._numbers = {caller: first_table + index for index, caller in enumerate(rules.callers)}
        after = first_table + len(self._numbers)
        forms = [(caller, form) for caller in selves for form in _FORMS]
        self._forwarded = {key: after + index for index, key in enumerate(forms)}
        self._domains: dict[tuple[str, str], list[str]] = defaultdict(list)
        for caller in rules.callers:
            self._domains[caller.app_id, caller.namespace].append(caller.trust_domain)
        tables, sets = after + len(forms), FIRST_POLICY_SET
        enforced, audited = rules.policies.enforced, rules.policies.audited
        self._enforced = None if enforced is None else PolicyJudge(enforced, tables, sets)
        sets += 0 if enforced is None else len(enforced.headers)
        self._audited = None if audited is None else PolicyJudge(audited, tables + len(FORMS), sets)
        self._tokens, self._audited_tokens = (
            Tokens(() if policies is None else policies.issuers, remote) for policies in (enforced, audited)
        )

    @property
    def posture(self) -> Profile | None:
        """The profile that decides alone, as no policy is written; None where one is."""
        return self.rules.profile if self._enforced is None else None

    @property
    def _judges(self) -> tuple[PolicyJudge, ...]:
        return tuple(judge for judge in (self._enforced, self._audited) if judge is not None)

    def trust_domains_of(self, app_id: str, namespace: str) -> tuple[str, ...]:
        """Those that entries name for an app."""
        return tuple(self._domains.get((app_id, namespace), ()))

    def tables(self) -> Iterator[tuple[int, Table]]:
        """What must be pushed before it decides."""
        for caller, number in self._numbers.items():
            table = self.rules.table(caller)
            if table is not None:
                paths = AccessPaths(table)
                yield number, paths
                for form in _FORMS:
                    forwarded = self._forwarded.get((caller, form))
                    if forwarded is not None:
                        yield forwarded, ForwardedPaths(paths, form)
        for judge in self._judges:
            yield from judge.tables()

    def sets(self) -> Iterator[tuple[int, frozenset[bytes]]]:
        """The header sets that must be pushed before it decides."""
        for judge in self._judges:
            yield from judge.sets()

    def decide(
        self,
        head: RecordingHead,
        caller: Caller | None,
        protocol: Protocol,
        *,
        is_grpc: bool = False,
        form: Form = "sent",
        users: Users = NOBODY,
    ) -> AccessDecision:
        """May this caller do this, for these users? Reads the path's class and the verb only where a rule could turn on them.

        `is_grpc`: it is a gRPC call, also in the form of gRPC-Web. `form`: of a call of the app to itself, the path that it finds;
        from a peer it comes in its form already. Denied by accessControl or by the policies is denied; without the one or the
        other, that one has no say.
        """
        found = AccessDecision(allowed=True, reason="no-policy")
        if self._enforced is None or self.rules.profile is None:
            found = self._by_access_control(head, caller, protocol, form)
        is_self = self._is_self(caller)
        if found.allowed and self._enforced is not None:
            verdict = self._enforced.decide(
                head, caller, is_self=is_self, form=form, is_grpc=is_grpc, token=users.enforced
            )
            found = replace(_by_policy(verdict, is_self=is_self), authorizers=verdict.authorizers)
        if found.allowed and self._audited is not None:
            verdict = self._audited.decide(
                head, caller, is_self=is_self, form=form, is_grpc=is_grpc, token=users.audited
            )
            would = _by_policy(verdict, is_self=is_self)
            if not would.allowed:
                named = f"{would.policy}/{would.rule}" if would.rule else would.reason
                found = replace(found, would_deny=named)
            elif verdict.authorizers:
                found = replace(found, would_ask=verdict.authorizers)
        return found

    def users(self, head: RecordingHead, labels: Labels, surface: Surface) -> Users | Hold | Reply:
        """The user behind a call; or the refusal of a token that does not count. What policies only audit refuses nothing."""

        def refuse(cause: Cause, text: str) -> Reply:
            told = replace(labels, decision="policy=- rule=- reason=token")
            asked = (b"www-authenticate", b'Bearer realm="%b", error="invalid_token"' % labels.dst.encode())
            is_theirs = cause is Cause.UNAUTHENTICATED
            return errors.reply(
                *(cause, told, text), surface=surface, callee=labels.dst, extra=(asked,) if is_theirs else ()
            )

        found = self._tokens.read(head, refuse)
        if isinstance(found, Hold | Reply):
            return found
        audited = self._audited_tokens.read(head, refuse)
        return Users(found, audited if isinstance(audited, VerifiedToken) else None, self._tokens.told(found))

    def _is_self(self, caller: Caller | None) -> bool:
        rules = self.rules
        return (
            caller is not None
            and (caller.app_id, caller.namespace) == (rules.own_app_id, rules.own_namespace)
            and rules.own_trust_domain in {None, caller.trust_domain}
        )

    def _by_access_control(
        self, head: RecordingHead, caller: Caller | None, protocol: Protocol, form: Form
    ) -> AccessDecision:
        table = self.rules.table(caller)
        classes: tuple[int, ...] = ()
        if caller is not None and table is not None:
            number = self._numbers[caller] if form == "sent" else self._forwarded[caller, form]
            found = head.path_class(number)
            assert isinstance(found, tuple)
            classes = found
        verb = "" if protocol == "grpc" or table is None else head.method()
        if protocol == "http" and table is None:
            verb = "GET"  # no rule names a verb for this caller: any stands for all
        return self.rules.decide(caller, classes, verb, protocol)

    def denied_as(self, head: RequestHead, labels: Labels, protocol: Protocol, own: Caller) -> str:
        """As which reading of its path a call was denied; "" where no path turned the decision, or none could be judged."""
        form: Form = "sent"
        if labels.direction == "inbound":
            caller = caller_of(labels.peer_id or None)
        else:
            is_as_sent = labels.surface == "own" or head.protocol == "grpc"
            caller, form = own, "sent" if is_as_sent else "method" if labels.strip else "whole"
        path = as_forwarded(head.path, form)
        asked = Operation(protocol=protocol, verb=head.method, path=path)
        if self._enforced is None or self.rules.profile is None:
            found = self.rules.denied_reading(caller, asked)
            if found or self._enforced is None:
                return found
        is_grpc = head.protocol == "grpc" or labels.is_grpc_web
        return self._enforced.denied_reading(
            head, path, caller, is_self=self._is_self(caller), is_grpc=is_grpc
        )

    def describe(self, decision: AccessDecision) -> str:
        """A decision for telemetry."""
        told = f"policy={decision.policy or '-'} rule={decision.rule or '-'} reason={decision.reason}"
        if decision.reason == "no-policy":
            told = f"{told} profile={self.rules.profile}"
        for key, value in (
            ("asks", ",".join(decision.authorizers)),
            ("would_deny", decision.would_deny),
            ("would_ask", ",".join(decision.would_ask)),
        ):
            told = f"{told} {key}={value}" if value else told
        return told


def _by_policy(verdict: PolicyVerdict, *, is_self: bool) -> AccessDecision:
    if verdict.policy:
        return AccessDecision(
            allowed=verdict.allowed, reason="rule", policy=verdict.policy, rule=verdict.rule, scope="app"
        )
    if verdict.is_unreadable:
        return AccessDecision(allowed=False, reason="bad-path", scope="global")
    reason: Reason = "self" if is_self and verdict.allowed else "no-rule"
    return AccessDecision(allowed=verdict.allowed, reason=reason, scope="global")
