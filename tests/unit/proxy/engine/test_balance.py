"""Which endpoint the next attempt goes to."""

import random
from collections import Counter

from proxy.engine.portable.balance import EJECT_FIRST_S, EJECT_MAX_S, WARM_UP, Load, choose


def simulate(
    loads: list[Load], took: dict[str, float], calls: int, *, spacing_s: float = 0.001
) -> Counter[str]:
    """Calls arrive evenly, each takes what its endpoint takes; how many each got."""
    rng = random.Random(7)
    hits: Counter[str] = Counter()
    ends: list[tuple[float, Load]] = []
    for number in range(calls):
        now = 1.0 + number * spacing_s
        for at, load in [end for end in ends if end[0] <= now]:
            load.in_flight -= 1
            load.observe(took[load.address], at)
            ends.remove((at, load))
        chosen = choose(loads, (), now, rng)
        assert chosen is not None
        chosen.in_flight += 1
        hits[chosen.address] += 1
        ends.append((now + took[chosen.address], chosen))
    return hits


def test_choose_two_equal_endpoints_share_evenly() -> None:
    hits = simulate([Load(address="a"), Load(address="b")], {"a": 0.005, "b": 0.005}, 4_000)
    assert 0.45 <= hits["a"] / 4_000 <= 0.55


def test_choose_slow_endpoint_gets_less_than_a_fifth() -> None:
    hits = simulate([Load(address="a"), Load(address="b")], {"a": 0.005, "b": 0.100}, 4_000)
    assert hits["b"] / 4_000 < 0.20


def test_choose_one_slow_of_five_gets_less_than_its_share() -> None:
    loads = [Load(address=name) for name in "abcde"]
    hits = simulate(loads, {**dict.fromkeys("abcd", 0.005), "e": 0.100}, 4_000)
    assert hits["e"] / 4_000 < 0.10
    assert min(hits[name] for name in "abcd") / 4_000 > 0.15


def test_choose_endpoint_that_is_quick_again_gets_its_share_back() -> None:
    loads = [Load(address="a"), Load(address="b")]
    simulate(loads, {"a": 0.005, "b": 0.100}, 2_000)
    rng = random.Random(3)
    picked = [choose(loads, (), 1_000.0, rng) for _ in range(100)]
    assert any(load is not None and load.address == "b" for load in picked)


def test_choose_without_endpoints_is_none() -> None:
    assert choose((), (), 0.0, random.Random(1)) is None


def test_choose_prefers_untried_over_tried() -> None:
    loads = [Load(address="a"), Load(address="b", in_flight=50)]
    for seed in range(20):
        chosen = choose(loads, {"a"}, 0.0, random.Random(seed))
        assert chosen is loads[1]


def test_choose_all_tried_tries_any_again() -> None:
    loads = [Load(address="a"), Load(address="b")]
    assert choose(loads, {"a", "b"}, 0.0, random.Random(1)) in loads


def test_choose_avoids_an_ejected_endpoint_until_its_time_is_over() -> None:
    loads = [Load(address="a"), Load(address="b")]
    loads[0].eject(10.0)
    assert {choose(loads, (), 10.5, random.Random(n)) is loads[1] for n in range(20)} == {True}
    after = {choose(loads, (), 10.0 + EJECT_FIRST_S, random.Random(n)) is loads[0] for n in range(20)}
    assert True in after


def test_choose_all_ejected_takes_any() -> None:
    loads = [Load(address="a"), Load(address="b")]
    for load in loads:
        load.eject(10.0)
    picked = {chosen.address for n in range(40) if (chosen := choose(loads, (), 10.1, random.Random(n)))}
    assert picked == {"a", "b"}


def test_choose_untried_but_ejected_goes_before_tried() -> None:
    loads = [Load(address="a"), Load(address="b")]
    loads[1].eject(10.0)
    assert choose(loads, {"a"}, 10.1, random.Random(1)) is loads[1]


def test_choose_weight_draws_more() -> None:
    rng = random.Random(5)
    loads = [Load(address="a", weight=4), Load(address="b", weight=1)]
    hits: Counter[str] = Counter()
    for number in range(1_000):
        chosen = choose(loads, (), 1.0, rng)
        assert chosen is not None
        chosen.in_flight += 1
        hits[chosen.address] += 1
        if number % 10 == 9:
            for load in loads:
                load.in_flight = 0
    assert hits["a"] > 2 * hits["b"]


def test_eject_doubles_up_to_a_bound() -> None:
    load = Load(address="a")
    now, lengths = 0.0, []
    for _ in range(8):
        load.eject(now)
        lengths.append(load.ejected_until - now)
        now = load.ejected_until
    assert lengths[:3] == [EJECT_FIRST_S, 2 * EJECT_FIRST_S, 4 * EJECT_FIRST_S]
    assert lengths[-1] == EJECT_MAX_S


def test_endpoint_may_stay_away_for_as_long_as_it_likes() -> None:
    dead, stranger = Load("a"), Load("b")
    for _ in range(2_000):
        dead.eject(dead.ejected_until)
        stranger.put_away(stranger.ejected_until)
    assert (dead.failures, stranger.mismatches) == (2_000, 2_000)
    last = dead.ejected_until
    dead.eject(last)
    assert dead.ejected_until - last == EJECT_MAX_S


def test_eject_while_ejected_changes_nothing() -> None:
    load = Load(address="a")
    load.eject(0.0)
    load.eject(0.5)
    assert (load.failures, load.ejected_until) == (1, EJECT_FIRST_S)


def test_observe_success_readmits_at_once() -> None:
    load = Load(address="a")
    load.eject(0.0)
    load.observe(0.01, 0.5)
    assert (load.failures, load.ejected_until) == (0, 0.0)


def test_observe_rises_at_once_and_decays_slowly() -> None:
    load = Load(address="a", samples=WARM_UP)
    load.observe(0.010, 1.0)
    load.observe(1.0, 1.1)
    assert load.rtt_s == 1.0
    load.observe(0.010, 1.2)
    assert 0.5 < load.rtt_s < 1.0


def test_slow_first_answer_does_not_cost_an_endpoint_its_share() -> None:
    rng = random.Random(7)
    cold, warm = Load(address="cold"), Load(address="warm")
    cold.observe(0.500, 0.0)
    chosen: list[str] = []
    for number in range(200):
        now = 0.01 * number
        load = choose((cold, warm), (), now, rng)
        assert load is not None
        chosen.append(load.address)
        load.observe(0.005, now)
    assert 70 <= chosen.count("cold") <= 130
