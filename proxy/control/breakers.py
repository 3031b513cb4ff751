"""Circuit breakers as the control plane has them: pushed to the engine, and what it says of them for the log, metrics and status."""

from collections.abc import Callable, Iterable
from typing import Any

from policies.rules.resiliency import BREAKER, ResiliencyRules, TargetRules
from proxy.contract.breakers import BreakerGlance, BreakerState, BreakerTurn, Counts
from proxy.contract.engine import Engine
from proxy.deciding.retry_policies import breaker_spec
from telemetry.kinds import resiliency_labels
from telemetry.logs import Logger
from telemetry.metrics import Meters

STATES = ("closed", "half-open", "open", "unknown")  # of dapr_resiliency_cb_state
_WORST: tuple[BreakerState, ...] = ("closed", "half-open", "open")
_COUNTS = ("requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures")


def push_breakers(engine: Engine, before: ResiliencyRules, now: ResiliencyRules) -> None:
    """Set the breakers of the rules in force, which keep their state where they are as they were, and remove others."""
    rules = {rule.owner: rule for rule in now.breakers}
    for rule in before.breakers:
        if rule.owner not in rules:
            engine.set_breaker(rule.owner, None)
    for owner, rule in rules.items():
        engine.set_breaker(owner, breaker_spec(rule))


def _rules_of(resiliency: ResiliencyRules, owner: str) -> TargetRules:
    return resiliency.targets.get(owner, resiliency.default)


def _labels(meters: Meters, rules: TargetRules, target: str, path: str, status: str) -> tuple[str, ...]:
    return resiliency_labels(meters, (*rules.resource, BREAKER, f"app_{target}"), path, status)


class BreakerNews:
    """Changes of state, for the log and metrics. `resiliency`: the rules in force."""

    def __init__(self, resiliency: Callable[[], ResiliencyRules], meters: Meters, log: Logger) -> None:
        self._resiliency = resiliency
        self._meters = meters
        self._log = log

    def turned(self, turn: BreakerTurn, path: str = "", *, hides_paths: bool = False) -> None:
        """One breaker changed its state. path: the label of its method."""
        rules = _rules_of(self._resiliency(), turn.name)
        labels = _labels(self._meters, rules, turn.target, path, turn.after)
        self._meters.resiliency_activations.add(*labels)
        log = self._log.warning if turn.after == "open" else self._log.info
        log(
            f"circuit breaker {_VERBS[turn.after]}",
            callee=turn.target,
            policy=rules.breaker.name if rules.breaker is not None else "",
            **({} if hides_paths else {"method": turn.method}),
            before=turn.before,
            **_counted(turn.counts),
        )


_VERBS = {"open": "opened", "half-open": "lets calls probe", "closed": "closed"}


def _counted(counts: Counts) -> dict[str, int]:
    return dict(zip(_COUNTS, counts, strict=True))


def scrape_breakers(
    meters: Meters,
    resiliency: ResiliencyRules,
    glances: Iterable[BreakerGlance],
    label: Callable[[str], str],
) -> None:
    """The state of each target: that of its breaker which is worst, as each method has its own.

    label: of a method; where metrics tell methods apart, the worst of those with one label.
    """
    has_paths = meters.options.has_resiliency_paths
    worst = {
        (owner, owner, ""): 0 for owner, rules in resiliency.targets.items() if rules.breaker is not None
    }
    for glance in glances:
        key = (glance.name, glance.target, label(glance.method) if has_paths else "")
        worst[key] = max(worst.get(key, 0), _WORST.index(glance.state))
    meters.resiliency_cb_state.replace(
        {
            _labels(meters, _rules_of(resiliency, owner), target, path, status): int(status == _WORST[state])
            for (owner, target, path), state in worst.items()
            for status in STATES
        }
    )


def breakers_status(
    resiliency: ResiliencyRules, glances: Iterable[BreakerGlance], *, hides_paths: bool = False
) -> list[dict[str, Any]]:
    """Those that have been asked, the worst first. hides_paths: without methods, which may be HTTP paths."""
    found = sorted(glances, key=lambda one: (-_WORST.index(one.state), one.target, one.method))
    return [
        {
            "target": one.target,
            "method": "" if hides_paths else one.method,
            "policy": rules.breaker.name
            if (rules := _rules_of(resiliency, one.name)).breaker is not None
            else "",
            "state": one.state,
            "counters": _counted(one.counts),
            "probesInS": round(one.left_s, 1),
        }
        for one in found
    ]
