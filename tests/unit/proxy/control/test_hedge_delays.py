"""Hedging by how long calls took lately."""

from collections.abc import Mapping

import pytest

from policies.rules.retries import HedgeRule, TargetRetries
from policies.rules.traffic import TargetTraffic, TrafficRules
from proxy.control.hedge_delays import LEAST_CALLS, WINDOW_S, HedgeDelays
from tests.unit.telemetry.test_recent import LABELS, Watched


def hedged(delay_s: float | None) -> TargetTraffic:
    return TargetTraffic(retries=TargetRetries(hedging=HedgeRule(attempts=2, delay_s=delay_s)))


TRAFFIC = TrafficRules(targets={"cart.default": hedged(None)})


class Measured(Watched):
    """What was told of calls, at the moments that a test makes."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Mapping[str, float]] = []
        self.delays = HedgeDelays(self.recent, self.told.append)

    def look(self, traffic: TrafficRules = TRAFFIC) -> None:
        self.after(1.0)
        self.delays.look(traffic, self.now)


def test_delay_is_the_95th_percentile_of_the_last_calls() -> None:
    calls = Measured()
    calls.call(0.0009, times=LEAST_CALLS - 1)
    calls.look()
    assert not calls.told  # too few
    calls.call(0.009, times=10)
    calls.look()
    (told,) = calls.told
    assert told == {"cart.default": pytest.approx(0.001 + 0.009 * (0.95 * 29 - 19) / 10)}


def test_delay_stays_for_a_while_and_then_follows() -> None:
    calls = Measured()
    calls.call(0.02, times=LEAST_CALLS)
    calls.look()
    calls.call(0.0009, times=100)
    for _ in range(int(WINDOW_S) - 1):
        calls.look()
    assert len(calls.told) == 1
    calls.call(0.0009, times=100)
    calls.look()
    assert len(calls.told) == 2
    assert calls.told[1]["cart.default"] < calls.told[0]["cart.default"]


def test_delay_is_never_too_short_and_about_the_same_one_stays() -> None:
    calls = Measured()
    calls.call(0.0001, times=LEAST_CALLS)
    for _ in range(20):
        calls.look()
        calls.call(0.0001, times=LEAST_CALLS)
    assert calls.told == [{"cart.default": 0.005}]


@pytest.mark.parametrize(
    "traffic",
    [TrafficRules(), TrafficRules(default=hedged(0.1)), TrafficRules(targets={"pay.default": hedged(None)})],
)
def test_what_has_no_such_rule_is_not_measured(traffic: TrafficRules) -> None:
    calls = Measured()
    calls.call(times=100)
    calls.call(times=100, labels=("inbound", *LABELS[1:]))
    calls.look(traffic)
    assert not calls.told
