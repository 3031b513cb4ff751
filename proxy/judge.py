"""Asks the access rules of one policy generation, through pushed path tables, so that a decision can be kept. Pure."""

from collections.abc import Iterator

from policies.access import AccessRules, Caller, Decision, Protocol
from policies.matcher import PathTable
from proxy.plan import Asking
from proxy.target import FIRST_ACCESS_TABLE


class Judge:
    """Access rules and the numbers under which their tables are pushed; replaced whole at each policy change."""

    def __init__(self, rules: AccessRules, first_table: int = FIRST_ACCESS_TABLE) -> None:
        self.rules = rules
        self._numbers = {caller: first_table + index for index, caller in enumerate(rules.callers)}

    def tables(self) -> Iterator[tuple[int, PathTable]]:
        """What must be pushed before this judge decides."""
        for caller, number in self._numbers.items():
            table = self.rules.table(caller)
            if table is not None:
                yield number, table

    def decide(self, ask: Asking, caller: Caller | None, protocol: Protocol) -> Decision:
        """May this caller do this? Reads the path's class and the verb only where a rule could turn on them."""
        table = self.rules.table(caller)
        path_class = 0
        if caller is not None and table is not None:
            path_class = int(str(ask.path_class(self._numbers[caller])))
        verb = "" if protocol == "grpc" or table is None else ask.method()
        if protocol == "http" and table is None:
            verb = "GET"  # no rule names a verb for this caller: any stands for all
        return self.rules.decide(caller, path_class, verb, protocol)


def describe(decision: Decision) -> str:
    """A decision for telemetry."""
    return f"policy={decision.policy or '-'} rule={decision.rule or '-'} reason={decision.reason}"
