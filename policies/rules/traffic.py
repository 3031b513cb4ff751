"""How calls to each target are spread over its endpoints, which of these get none, how calls are retried and limited, and how many come
to the app; frozen values, pure.

Made of Traffic documents by `compile_traffic.py`; without any, `TrafficRules()` holds.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

from policies.rules.access_policies import PolicyRules
from policies.rules.faults import FaultRule, InboundFaults
from policies.rules.limits import ConcurrencyRule, Limits, ThrottleRule
from policies.rules.retries import TargetRetries
from policies.rules.written import Written

BalancingPolicy = Literal["latency", "least-requests", "round-robin", "random", "ring-hash"]


class BalancingRule(Struct, frozen=True, kw_only=True):
    """Which endpoint of a target a call goes to.

    header: of `ring-hash`, the header whose value decides, in lower case; empty: the caller's identity does.
    """

    policy: BalancingPolicy = "latency"
    header: str = ""


class OutlierRule(Struct, frozen=True, kw_only=True):
    """When an endpoint is left out for its answers, for how long, and how it comes back: `Outliers` of engines, which go by it."""

    consecutive: int = 5
    rate_endpoints: int = 5
    rate_requests: int = 100
    rate_factor: float = 1.9
    ejection_s: float = 30.0
    max_ejection_s: float = 300.0
    max_percent: int = 10
    interval_s: float = 10.0
    slow_start_s: float = 10.0


class TargetTraffic(Struct, frozen=True, kw_only=True):
    """What holds for calls to one target. outliers: None: no endpoint is left out for its answers.

    source: the entry that says so, `targets.apps.<name>` or `targets.default`; empty: none does.
    """

    balancing: BalancingRule = BalancingRule()
    concurrency: ConcurrencyRule | None = None
    throttle: ThrottleRule | None = None
    retries: TargetRetries = TargetRetries()
    outliers: OutlierRule | None = OutlierRule()
    faults: tuple[FaultRule, ...] = ()
    source: str = ""


class TrafficRules(Struct, frozen=True, kw_only=True):
    """All of one sidecar's. targets: by `app.namespace`. inbound: of calls that come to its app.

    written: where the entry of a target is, by target; of the default's by "". inbound_written: of the limits of `inbound`, by gate or key.
    matching: says which calls the faults of targets are for; None: there are none.
    """

    targets: Mapping[str, TargetTraffic] = field(default_factory=dict)
    default: TargetTraffic = TargetTraffic()
    inbound: Limits = Limits()
    written: Mapping[str, Written] = field(default_factory=dict)
    inbound_written: Mapping[str, Written] = field(default_factory=dict)
    matching: PolicyRules | None = None
    inbound_faults: InboundFaults = InboundFaults()

    @property
    def measures_hedging(self) -> bool:
        """Whether calls of a target are hedged by how long they took lately."""
        rules = (target.retries.hedging for target in (self.default, *self.targets.values()))
        return any(rule is not None and rule.delay_s is None for rule in rules)

    @property
    def hedged_methods(self) -> frozenset[str]:
        """Those of gRPC that any target hedges."""
        each = (target.retries.hedging for target in (self.default, *self.targets.values()))
        return frozenset().union(*(one.methods for one in each if one is not None))

    def for_app(self, app_id: str, namespace: str) -> TargetTraffic:
        """What holds for calls to an app, however the call spells it; an HTTPEndpoint is one of its caller's own namespace."""
        return self.targets.get(f"{app_id}.{namespace}", self.default)


def unsaid_traffic(profile: str) -> TargetTraffic:
    """What holds for targets of which nothing is said: in the profile `daprd`, no more than daprd does."""
    return TargetTraffic(outliers=None) if profile == "daprd" else TargetTraffic()
