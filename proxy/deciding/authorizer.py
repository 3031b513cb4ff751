"""Asks the access rules of one policy generation, through pushed path tables, so that a decision can be kept. Pure."""

from collections import defaultdict
from collections.abc import Hashable, Iterator

from msgspec import Struct

from policies.rules.access import AccessDecision, AccessRules, Caller, Operation, Profile, Protocol
from policies.rules.matcher import PathTable
from proxy.contract.head import Form, RequestHead
from proxy.contract.plan import Labels
from proxy.contract.recording import RecordingHead, Shape, Table
from proxy.deciding.callee import FIRST_ACCESS_TABLE, ForwardedPaths
from proxy.deciding.peer import caller_of
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

    def __init__(self, rules: AccessRules, first_table: int = FIRST_ACCESS_TABLE) -> None:
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

    @property
    def posture(self) -> Profile | None:
        """The profile that decides alone, as no policy is written; None where one is."""
        return self.rules.profile

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

    def decide(
        self, head: RecordingHead, caller: Caller | None, protocol: Protocol, *, form: Form = "sent"
    ) -> AccessDecision:
        """May this caller do this? Reads the path's class and the verb only where a rule could turn on them.

        `form`: of a call of the app to itself, the path that it finds; from a peer it comes in its form already.
        """
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
        asked = Operation(protocol=protocol, verb=head.method, path=as_forwarded(head.path, form))
        return self.rules.denied_reading(caller, asked)

    def describe(self, decision: AccessDecision) -> str:
        """A decision for telemetry."""
        told = f"policy={decision.policy or '-'} rule={decision.rule or '-'} reason={decision.reason}"
        return f"{told} profile={self.rules.profile}" if decision.reason == "no-policy" else told
