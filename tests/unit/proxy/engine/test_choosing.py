"""Which endpoint the next attempt goes to."""

import random
from collections import Counter
from typing import Literal

import msgspec
import pytest

from proxy.contract.balancing import Balancing, BalancingPolicy
from proxy.engine.portable.balance import Load, Standing
from proxy.engine.portable.choosing import Rotation, by_latency, choose, hash_of, order_of
from tests.support.vectors import Vector, vectors


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
        chosen = choose(loads, (), now, rng.random, by_latency)
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
    picked = [choose(loads, (), 1_000.0, rng.random, by_latency) for _ in range(100)]
    assert any(load is not None and load.address == "b" for load in picked)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    weight: int = 1
    rank: int = 0
    proven: bool = True


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to the endpoint `to` at a moment, or is asked: `choose` one, or what is to `see` of it."""

    at: float
    do: Literal[
        "observe",
        "yield_way",
        "avoid",
        "eject",
        "put_away",
        "restore",
        "prove",
        "leave_out",
        "come_back",
        "begin",
        "end",
        "choose",
        "see",
    ]
    to: int = 0
    took_s: float = 0.0
    times: int = 1
    tried: tuple[int, ...] = ()
    chance: tuple[float, ...] = ()
    key: str | None = None
    chosen: int | None = None
    ejected_s: float | None = None
    rtt_s: float | None = None


class Choices(Vector, frozen=True, kw_only=True):
    by: BalancingPolicy = "latency"
    endpoints: list[Endpoint]
    steps: list[Step]


def change(load: Load, step: Step) -> None:
    match step.do:
        case "observe":
            load.observe(step.took_s, step.at)
        case "yield_way":
            load.yield_way()
        case "avoid":
            load.avoid(step.at)
        case "eject":
            load.eject(step.at)
        case "put_away":
            load.put_away(step.at)
        case "restore":
            load.restore()
        case "prove":
            load.proven = True
        case "leave_out" | "come_back":
            is_out = step.do == "leave_out"
            load.standing = Standing(
                out_until=step.at + 30.0 if is_out else 0.0, back_at=step.at, slow_s=10.0
            )
        case "begin" | "end":
            load.in_flight += 1 if step.do == "begin" else -1
        case other:
            raise AssertionError(other)


@vectors("balance", "choices", Choices)
def test_endpoints_are_chosen_by_what_happened_to_them(vector: Choices) -> None:
    loads = [
        Load(
            address=str(number),
            weight=end.weight,
            rank=end.rank,
            proven=end.proven,
            mark=hash_of(str(number).encode()),
        )
        for number, end in enumerate(vector.endpoints)
    ]
    balancing, rotation = Balancing(policy=vector.by, header=b"key"), Rotation()
    for step in vector.steps:
        if step.do == "choose":
            chances = iter(step.chance)
            order = order_of(balancing, None if step.key is None else step.key.encode(), rotation)
            tried = {str(number) for number in step.tried}
            chosen = choose(loads, tried, step.at, lambda: next(chances), order)  # noqa: B023 - called at once
            assert chosen is (None if step.chosen is None else loads[step.chosen]), step
            assert not list(chances), step
        elif step.do == "see":
            load = loads[step.to]
            if step.ejected_s is not None:
                assert max(0.0, load.ejected_until - step.at) == pytest.approx(step.ejected_s), step
            if step.rtt_s is not None:
                assert load.rtt_s == pytest.approx(step.rtt_s, rel=1e-5), step
        else:
            for _ in range(step.times):
                change(loads[step.to], step)


def test_choose_weight_draws_more() -> None:
    rng = random.Random(5)
    loads = [Load(address="a", weight=4), Load(address="b", weight=1)]
    hits: Counter[str] = Counter()
    for number in range(1_000):
        chosen = choose(loads, (), 1.0, rng.random, by_latency)
        assert chosen is not None
        chosen.in_flight += 1
        hits[chosen.address] += 1
        if number % 10 == 9:
            for load in loads:
                load.in_flight = 0
    assert hits["a"] > 2 * hits["b"]


def test_slow_first_answer_does_not_cost_an_endpoint_its_share() -> None:
    rng = random.Random(7)
    cold, warm = Load(address="cold"), Load(address="warm")
    cold.observe(0.500, 0.0)
    chosen: list[str] = []
    for number in range(200):
        now = 0.01 * number
        load = choose((cold, warm), (), now, rng.random, by_latency)
        assert load is not None
        chosen.append(load.address)
        load.observe(0.005, now)
    assert 70 <= chosen.count("cold") <= 130


def test_keys_are_spread_evenly_and_few_move_where_an_endpoint_goes() -> None:
    loads = [Load(address=name, mark=hash_of(name.encode())) for name in "abcde"]

    def chosen(key: int, among: list[Load]) -> str:
        order = order_of(Balancing(policy="ring-hash", header=b"key"), str(key).encode(), Rotation())
        load = choose(among, (), 0.0, random.Random(1).random, order)
        assert load is not None
        return load.address

    before = [chosen(key, loads) for key in range(5_000)]
    after = [chosen(key, loads[1:]) for key in range(5_000)]
    assert all(900 < count < 1_100 for count in Counter(before).values())
    assert {one for one, other in zip(before, after, strict=True) if one != other} == {"a"}


def test_bytes_of_all_calls_make_them_go_to_one_endpoint() -> None:
    loads = [Load(address=name, mark=hash_of(name.encode())) for name in "abc"]
    order = order_of(Balancing(policy="ring-hash", key=b"cart.shop"), None, Rotation())
    rng = random.Random(1)
    hits = Counter(load.address for _ in range(20) if (load := choose(loads, (), 0.0, rng.random, order)))
    assert len(hits) == 1
