"""Which limits of a Traffic a call to the app passes, and each as data for engines. Pure."""

from collections.abc import Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from policies.rules.caller import Caller
from policies.rules.faults import FaultRule
from policies.rules.limits import ConcurrencyRule, Limits, RateRule
from policies.rules.traffic import TargetTraffic, TrafficRules
from proxy.contract.gates import (
    AdaptiveGate,
    ConcurrencyGate,
    EachGate,
    GateSpec,
    LagGate,
    RateGate,
    ThrottleGate,
    connections_gate,
)
from proxy.contract.plan import Plan, Route
from proxy.contract.recording import RecordingHead, Table
from proxy.deciding.callee import LIMIT_PATHS, parse_key
from proxy.deciding.external import endpoint_of, url_of
from proxy.deciding.faults import FaultJudge, behind, fault_gates, inbound_faults
from proxy.deciding.policy_judge import PolicyJudge

PEER_LISTENER = "peer"
_LAG = "inbound-lag"
_CONCURRENCY = "inbound-concurrency"
_INBOUND = "inbound"


class InboundLimits(Struct, frozen=True, kw_only=True):
    """Those in force for calls to the app, and the faults that are injected into them. judge: finds the rates of a call; None where there
    are none.
    """

    limits: Limits = Limits()
    judge: PolicyJudge | None = None
    faults: tuple[FaultRule, ...] = ()
    fault_judge: FaultJudge = FaultJudge()
    gates: Mapping[str, GateSpec] = field(default_factory=dict)

    def tables(self) -> Iterator[tuple[int, Table]]:
        """What must be pushed before `rates_of` is asked."""
        if self.judge is not None:
            yield from self.judge.tables()
        yield from self.fault_judge.tables()

    def sets(self) -> Iterator[tuple[int, frozenset[bytes]]]:
        """The same of headers."""
        return self.fault_judge.sets()

    def harming(self, head: RecordingHead, caller: Caller | None, plan: Plan) -> Plan:
        """The Plan of a peer's call with the faults that are for it."""
        gates = self.fault_judge.meeting(head, self.faults, _INBOUND, caller)
        return replace(plan, routes=tuple(behind(one, gates) for one in plan.routes)) if gates else plan

    def faults_met(self, head: RecordingHead, caller: Caller | None) -> tuple[FaultRule, ...]:
        """The faults that are for a peer's call."""
        return self.fault_judge.met(head, self.faults, caller)

    @property
    def of_the_app(self) -> tuple[str, ...]:
        """Gates that stand before the app, whoever calls it."""
        return tuple(name for name in (_LAG, _CONCURRENCY) if name in self.gates)

    def rates_of(self, head: RecordingHead, caller: Caller | None, *, is_grpc: bool) -> tuple[str, ...]:
        """The gates of the rates for a peer's call."""
        return tuple(_rate_gate(rate.name) for rate in self.rates_met(head, caller, is_grpc=is_grpc))

    def rates_met(self, head: RecordingHead, caller: Caller | None, *, is_grpc: bool) -> tuple[RateRule, ...]:
        """The rates for a peer's call."""
        if self.judge is None:
            return ()
        return tuple(self.limits.rates[name] for name in self.judge.meeting(head, caller, is_grpc=is_grpc))


def inbound_limits(traffic: TrafficRules) -> InboundLimits:
    """Limits and faults with the gates that hold them."""
    limits, faults = traffic.inbound, traffic.inbound_faults
    gates: dict[str, GateSpec] = {_rate_gate(name): _rate(rule) for name, rule in limits.rates.items()}
    if limits.lag is not None:
        gates[_LAG] = LagGate(above_s=limits.lag.above_s, for_s=limits.lag.for_s)
    if limits.concurrency is not None:
        gates[_CONCURRENCY] = _concurrency(limits.concurrency)
    if limits.connections is not None:
        gates[connections_gate(PEER_LISTENER)] = EachGate(limit=limits.connections)
    judge = None if limits.matching is None else PolicyJudge(limits.matching, LIMIT_PATHS, 0)
    gates |= fault_gates(faults.rules, _INBOUND)
    fault_judge = inbound_faults(faults.matching)
    return InboundLimits(
        limits=limits, judge=judge, faults=faults.rules, fault_judge=fault_judge, gates=gates
    )


def gates_of(target: TargetTraffic, key: str) -> Mapping[str, GateSpec]:
    """What attempts at a cluster pass: each its limits, and those that they are for its faults."""
    return {**_limits_of(target, key), **fault_gates(target.faults, key)}


def _limits_of(target: TargetTraffic, key: str) -> Mapping[str, GateSpec]:
    made: dict[str, GateSpec] = {}
    if target.concurrency is not None:
        made[f"concurrency:{key}"] = _concurrency(target.concurrency)
    if target.throttle is not None:
        held = target.throttle
        made[f"throttle:{key}"] = ThrottleGate(ratio=held.ratio, window_s=held.window_s)
    return made


def target_of(traffic: TrafficRules, key: str, own_namespace: str) -> TargetTraffic:
    """What holds for calls to a cluster; an HTTPEndpoint is of its caller's own namespace."""
    if key.startswith("peer:"):
        return traffic.for_app(*parse_key(key))
    name = endpoint_of(key)
    if name is not None:
        return traffic.for_app(name, own_namespace)
    return traffic.default if url_of(key) is not None else TargetTraffic()


def limited(route: Route, target: TargetTraffic, faults: tuple[str, ...] = ()) -> Route:
    """The same route behind the target's limits, and these gates of its faults."""
    return replace(route, gates=(*_limits_of(target, route.cluster), *faults))


def _concurrency(rule: ConcurrencyRule) -> GateSpec:
    """A limit of calls at once as data for engines."""
    if rule.limit is None:
        return AdaptiveGate(min_limit=rule.least, max_limit=rule.most, queue=rule.queue, wait_s=rule.wait_s)
    return ConcurrencyGate(limit=rule.limit, queue=rule.queue, wait_s=rule.wait_s, newest_first=True)


def _rate(rule: RateRule) -> RateGate:
    """A rate as data for engines, with its RateLimit-Policy item: a window there is in whole seconds, and may be left out."""
    window = f";w={int(rule.per_s)}" if rule.per_s == int(rule.per_s) else ""
    return RateGate(
        per_s=rule.requests / rule.per_s,
        burst=rule.burst,
        is_shared=rule.is_shared,
        name=rule.name,
        policy=f'"{rule.name}";q={rule.requests}{window}',
    )


def _rate_gate(name: str) -> str:
    return f"rate:{name}"
