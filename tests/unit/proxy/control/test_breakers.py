"""What the control plane tells of circuit breakers: the log, metrics and status."""

from typing import Any

from policies.rules.resiliency import BreakerRule, ResiliencyRules, TargetRules
from proxy.contract.breakers import BreakerGlance, BreakerTurn, Counts
from proxy.control.breakers import BreakerNews, breakers_status, scrape_breakers
from telemetry.metrics import Meters, MetricOptions

GUARD = BreakerRule(name="guard", trip=(("bool", 1),), owner="shop")
RULES = ResiliencyRules(
    targets={
        "shop": TargetRules(breaker=GUARD, resource=("one", "prod")),
        "cart": TargetRules(breaker=BreakerRule(name="other", trip=(("bool", 1),), owner="cart")),
        "bare": TargetRules(),
    },
    default=TargetRules(breaker=BreakerRule(name="all", trip=(("bool", 1),)), resource=("two", "")),
)


def glance(state: Any, target: str = "shop", method: str = "/a", name: str = "shop") -> BreakerGlance:
    return BreakerGlance(name, target, method, state, Counts(3, 1, 2, 0, 2), 1.26)


class Log:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append(("warning", event, facts))

    def info(self, event: str, **facts: Any) -> None:
        self.lines.append(("info", event, facts))


def flow(name: str, namespace: str, target: str, status: str) -> tuple[str, ...]:
    return ("web", name, namespace, "circuitbreaker", "outbound", f"app_{target}", status)


def test_each_change_is_logged_with_its_counters_and_counted_under_the_right_resource() -> None:
    log, meters = Log(), Meters("web")
    news = BreakerNews(lambda: RULES, meters, log)  # type: ignore[arg-type]
    news.turned(BreakerTurn("shop", "shop", "/a", "closed", "open", Counts(3, 1, 2, 0, 2)))
    news.turned(BreakerTurn("", "pay", "/b", "open", "half-open", Counts()), hides_paths=True)
    (level, event, facts), (later, probing, hidden) = log.lines
    assert (level, event) == ("warning", "circuit breaker opened")
    assert facts == {
        "callee": "shop",
        "policy": "guard",
        "method": "/a",
        "before": "closed",
        "requests": 3,
        "totalSuccesses": 1,
        "totalFailures": 2,
        "consecutiveSuccesses": 0,
        "consecutiveFailures": 2,
    }
    assert (later, probing, hidden["policy"]) == ("info", "circuit breaker lets calls probe", "all")
    assert "method" not in hidden
    found = {labels: slot.value for labels, slot in meters.resiliency_activations.slots.items()}
    assert found == {
        flow("one", "prod", "shop", "open"): 1,
        flow("two", "", "pay", "half-open"): 1,
    }


def test_state_of_a_target_is_that_of_its_worst_method() -> None:
    meters = Meters("web")
    glances = [
        glance("closed"),
        glance("open", method="/b"),
        glance("half-open", method="/c"),
        glance("half-open", target="pay", name=""),
    ]
    scrape_breakers(meters, RULES, glances, str)
    is_so = {labels[5:] for labels, slot in meters.resiliency_cb_state.slots.items() if slot.value}
    assert is_so == {("app_shop", "open"), ("app_cart", "closed"), ("app_pay", "half-open")}
    assert len(meters.resiliency_cb_state.slots) == 12
    scrape_breakers(meters, ResiliencyRules(), (), str)
    assert not meters.resiliency_cb_state.slots


def test_methods_are_told_apart_where_metrics_say_so() -> None:
    meters = Meters("web", options=MetricOptions(has_resiliency_paths=True))
    news = BreakerNews(lambda: RULES, meters, Log())  # type: ignore[arg-type]
    news.turned(BreakerTurn("shop", "shop", "/a/1", "closed", "open", Counts()), "/a/{id}")
    assert list(meters.resiliency_activations.slots) == [(*flow("one", "prod", "shop", "open"), "/a/{id}")]
    glances = [glance("open", method="/a/1"), glance("closed", method="/a/2"), glance("closed", method="/b")]
    scrape_breakers(meters, RULES, glances, {"/a/1": "/a", "/a/2": "/a", "/b": "/b"}.__getitem__)
    is_so = {labels[5:] for labels, slot in meters.resiliency_cb_state.slots.items() if slot.value}
    assert is_so == {
        ("app_shop", "closed", ""),
        ("app_shop", "open", "/a"),
        ("app_shop", "closed", "/b"),
        ("app_cart", "closed", ""),
    }


def test_status_has_the_worst_first() -> None:
    told = breakers_status(
        RULES, [glance("closed"), glance("half-open", method="/c"), glance("open", method="/b")]
    )
    assert [(one["method"], one["state"], one["policy"]) for one in told] == [
        ("/b", "open", "guard"),
        ("/c", "half-open", "guard"),
        ("/a", "closed", "guard"),
    ]
    assert told[0]["probesInS"] == 1.3
    (hidden,) = breakers_status(RULES, [glance("open", method="/key/topsecret")], hides_paths=True)
    assert (hidden["target"], hidden["method"]) == ("shop", "")
    assert told[0]["counters"]["totalFailures"] == 2
