"""Which timeout, retries and circuit breaker a call to an app gets; frozen values, pure.

Made of Resiliency documents by `compile_resiliency.py`; without any, `ResiliencyRules()` has the built-in retry alone.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from policies.rules.budgets import RetryBudget, RetryShare
from policies.rules.retries import TargetRetries
from policies.rules.trip import Program
from policies.rules.written import Written

BUILTIN_NAME = "DaprBuiltInServiceRetries"
BUILTIN_MIN_RETRIES = 3
BREAKER = "circuitbreaker"  # the kind of policy, as metrics name it


class RetryRule(Struct, frozen=True, kw_only=True):
    """When to retry. `http_codes` and `grpc_codes` None mean every failure of that protocol, empty none.

    Failures without a status (connections, timeouts) are for retry whatever the codes say. `max_retries` counts
    retries after the first attempt; -1 is without limit.
    """

    name: str
    kind: Literal["constant", "exponential"] = "constant"
    duration_s: float = 5.0
    max_interval_s: float = 60.0
    max_retries: int = -1
    http_codes: frozenset[int] | None = None
    grpc_codes: frozenset[int] | None = None


BUILTIN_RETRY = RetryRule(
    name=BUILTIN_NAME,
    duration_s=1.0,
    max_retries=BUILTIN_MIN_RETRIES,
    http_codes=frozenset(),
    grpc_codes=frozenset({14, 16}),
)
"""Between sidecars, on UNAVAILABLE and UNAUTHENTICATED; never by an app's HTTP status."""


class BreakerRule(Struct, frozen=True, kw_only=True):
    """A circuit breaker, of which each method called has its own: `cache_size` of them are remembered, of each target.

    It opens where `trip` is true after a failure, for `timeout_s`; then it lets `max_requests` calls probe, and closes once so many have
    gone well. interval_s: after which a closed one begins to count anew; 0: never. owner: the entry of `targets.apps` that names it; empty:
    it is the default of targets without entry. trip_text: the program as it is written, for people.
    """

    name: str
    max_requests: int = 1
    interval_s: float = 0.0
    timeout_s: float = 60.0
    trip: Program
    cache_size: int = 100
    owner: str = ""
    trip_text: str = ""


class TargetRules(Struct, frozen=True, kw_only=True):
    """What holds for calls to one target: `retry` round `breaker` round `builtin_retry` round `timeout_s`, which is per attempt.

    `source` says where it comes from: `targets.apps.<id>`, `default` or `built-in`; `resource` in which one it is written, by name and
    namespace. heeds_answers: an answer may ask for a later attempt, or for none. budget: of retries by `retry`, for all calls together.
    retries: what postern's own kind says of them besides. denials_fail: a call that the callee's proxy denies is a failure to them.
    """

    timeout_s: float | None = None
    retry: RetryRule | None = None
    breaker: BreakerRule | None = None
    builtin_retry: RetryRule | None = BUILTIN_RETRY
    source: str = "built-in"
    resource: tuple[str, str] = ("", "")
    heeds_answers: bool = True
    budget: RetryBudget | None = RetryShare()
    retries: TargetRetries = TargetRetries()
    denials_fail: bool = False

    @property
    def policies(self) -> tuple[str, ...]:
        """The kinds of policy that were written."""
        kinds = (("timeout", self.timeout_s), ("retry", self.retry), (BREAKER, self.breaker))
        return tuple(kind for kind, policy in kinds if policy is not None)

    def labels(self, target: str) -> tuple[tuple[str, str, str, str], ...]:
        """What telemetry says of them: resource, its namespace, kind and target."""
        return tuple((*self.resource, kind, f"app_{target}") for kind in self.policies)


class ResiliencyRules(Struct, frozen=True, kw_only=True):
    """All of one caller's resiliency. `resources` are those that were loaded, in order: name and namespace.

    is_as_daprd: answers are not heeded, retries have no budget, and denials are failures. written: where the entry and the
    policies of a target are, by target; of the default's by "".
    """

    resources: tuple[tuple[str, str], ...] = ()
    targets: Mapping[str, TargetRules] = field(default_factory=dict)
    default: TargetRules = field(default_factory=TargetRules)
    is_as_daprd: bool = False
    written: Mapping[str, tuple[Written, ...]] = field(default_factory=dict)

    @property
    def breakers(self) -> tuple[BreakerRule, ...]:
        """All of them, by their owners."""
        each = (*self.targets.values(), self.default)
        return tuple(rules.breaker for rules in each if rules.breaker is not None)

    def for_app(self, target: str, own_app_id: str) -> TargetRules:
        """The rules for `target`, spelled as the app called it: `id`, `id.namespace` or a URL.

        Policies go by that very spelling; the built-in retry goes by the app-id alone, and never to our own app.
        """
        rules = self.targets.get(target, self.default)
        if self.is_as_daprd:
            rules = replace(rules, heeds_answers=False, budget=None, denials_fail=True)
        is_url = target.startswith(("http://", "https://"))
        app_id = target if is_url else target.partition(".")[0]
        if app_id in self.targets or app_id == own_app_id:
            return replace(rules, builtin_retry=None)
        return rules
