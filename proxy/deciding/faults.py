"""Which faults of a Traffic are injected into a call, and each as data for engines. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.access_policies import PolicyRules
from policies.rules.caller import Caller
from policies.rules.faults import FaultRule
from proxy.contract.gates import FaultGate
from proxy.contract.head import Form
from proxy.contract.plan import Route
from proxy.contract.recording import RecordingHead, Table
from proxy.deciding.policy_judge import PolicyJudge

GATE: Final = "fault:"  # what the names of their gates begin with
OUT_TABLES: Final = 1 << 21  # numbers of the pushed tables and sets: three tables, and a set for each header
OUT_SETS: Final = 1 << 21
IN_TABLES: Final = OUT_TABLES + 3
IN_SETS: Final = 1 << 22


class FaultJudge(Struct, frozen=True):
    """Finds the faults of a call. judge: None where there are none."""

    judge: PolicyJudge | None = None

    def tables(self) -> Iterator[tuple[int, Table]]:
        """What must be pushed before `meeting` is asked."""
        if self.judge is not None:
            yield from self.judge.tables()

    def sets(self) -> Iterator[tuple[int, frozenset[bytes]]]:
        """The same of headers."""
        if self.judge is not None:
            yield from self.judge.sets()

    def meeting(
        self,
        head: RecordingHead,
        rules: Sequence[FaultRule],
        key: str,
        caller: Caller | None,
        form: Form = "sent",
    ) -> tuple[str, ...]:
        """The gates of those rules of a cluster that speak of a call. form: of the path that its app gets."""
        return tuple(_gate(key, rule) for rule in self.met(head, rules, caller, form))

    def met(
        self, head: RecordingHead, rules: Sequence[FaultRule], caller: Caller | None, form: Form = "sent"
    ) -> tuple[FaultRule, ...]:
        """Those rules that speak of a call."""
        if self.judge is None or not rules:
            return ()
        grpc = head.protocol() == "grpc"
        met = set(self.judge.meeting(head, caller, is_grpc=grpc, form=form))
        return tuple(rule for rule in rules if rule.rule in met and rule.is_for(grpc=grpc))


def outbound_faults(matching: PolicyRules | None) -> FaultJudge:
    """Those of calls that the app makes."""
    return FaultJudge(None if matching is None else PolicyJudge(matching, OUT_TABLES, OUT_SETS))


def inbound_faults(matching: PolicyRules | None) -> FaultJudge:
    """Those of calls to the app."""
    return FaultJudge(None if matching is None else PolicyJudge(matching, IN_TABLES, IN_SETS))


def fault_gates(rules: Sequence[FaultRule], key: str) -> Mapping[str, FaultGate]:
    """What injects them into attempts at a cluster."""
    return {_gate(key, rule): _spec(rule) for rule in rules}


def behind(route: Route, gates: tuple[str, ...]) -> Route:
    """The same route whose attempts pass these gates last."""
    return replace(route, gates=(*route.gates, *gates)) if gates else route


def _gate(key: str, rule: FaultRule) -> str:
    return f"{GATE}{key}:{rule.name}"


def _spec(rule: FaultRule) -> FaultGate:
    bare = FaultGate(
        name=rule.name,
        kind=rule.kind,
        share=rule.share,
        times=rule.times or 0,
        seed=-1 if rule.seed is None else rule.seed,
        least_s=rule.least_s,
        most_s=rule.most_s,
        bytes=rule.bytes,
    )
    return replace(bare, status=rule.status or bare.status, grpc_code=rule.code or bare.grpc_code)
