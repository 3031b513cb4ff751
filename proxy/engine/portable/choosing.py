"""Which endpoint of a cluster the next attempt goes to. Pure: clock and chance are passed in.

The native engine's is kept in step by `tests/vectors/balance.json`.
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial

from msgspec import Struct

from proxy.contract.balancing import Balancing
from proxy.engine.portable.balance import DECAY_S, DEFAULT_RTT_S, WARM_UP, Load

SAME = 1.9  # costs nearer than this are noise: two equal endpoints share evenly, one more call in flight still counts
_WORD = (1 << 64) - 1

Chance = Callable[[], float]
#: Takes one of two or more endpoints of the same standing.
Order = Callable[[Sequence[Load], float, Chance], Load]


def choose(
    loads: Sequence[Load], tried: Collection[str], now: float, chance: Chance, order: Order
) -> Load | None:
    """The endpoint for the next attempt: untried before tried, then by tier; when all are ejected, any (panic rule). chance: in [0, 1).

    Where more than half are left out for their answers, none is.
    """
    heeds_answers = 2 * sum(load.standing.is_out(now) for load in loads) <= len(loads)
    untried = [load for load in loads if load.address not in tried] or list(loads)
    tiers = [load.tier(now, heeds_answers=heeds_answers) for load in untried]
    best = min(tiers, default=0)
    pool = [load for load, tier in zip(untried, tiers, strict=True) if tier == best]
    if len(pool) <= 1:
        return pool[0] if pool else None
    return order(pool, now, chance)


class Rotation(Struct):
    """Takes endpoints in turn, of more weight more often. `turn`: that of the endpoint taken last."""

    turn: float = 0.0

    def __call__(self, pool: Sequence[Load], now: float, _: Chance) -> Load:
        """Whose turn it is. Endpoints that were left out for a while do not catch up."""
        chosen = min(pool, key=lambda load: max(load.turn, self.turn))
        self.turn = max(chosen.turn, self.turn)
        chosen.turn = self.turn + 1.0 / chosen.worth(now)
        return chosen


def order_of(balancing: Balancing, header: bytes | None, rotation: Rotation) -> Order:
    """By which order a call's endpoint is chosen. header: the value of the one that `balancing` names; None: the call lacks it."""
    match balancing.policy:
        case "least-requests":
            return by_requests
        case "round-robin":
            return rotation
        case "random":
            return by_chance
        case "ring-hash" if header is not None or not balancing.header:
            return partial(by_hash, hash_of(balancing.key if header is None else header))
        case _:
            return by_latency


def by_latency(pool: Sequence[Load], now: float, chance: Chance) -> Load:
    """The power of two choices. chance: twice to pick two of more, and once between two that cost about the same."""
    first, second = pool if len(pool) == 2 else _two(pool, chance)
    one, other = _cost(first, second, now), _cost(second, first, now)
    if max(one, other) < SAME * min(one, other):
        return first if chance() < 0.5 else second
    return first if one < other else second


def by_requests(pool: Sequence[Load], now: float, chance: Chance) -> Load:
    """The one with the fewest calls for its weight; chance, once, between those that have as few."""
    costs = [(load.in_flight + 1) / load.worth(now) for load in pool]
    least = min(costs)
    idle = [load for load, cost in zip(pool, costs, strict=True) if cost == least]
    return idle[int(chance() * len(idle))] if len(idle) > 1 else idle[0]


def by_chance(pool: Sequence[Load], now: float, chance: Chance) -> Load:
    """Any, of more weight more often."""
    left = chance() * sum(load.worth(now) for load in pool)
    for load in pool[:-1]:
        left -= load.worth(now)
        if left < 0.0:
            return load
    return pool[-1]


def by_hash(key: int, pool: Sequence[Load], now: float, _: Chance) -> Load:
    """The same for the same key. The highest random weight wins: as on a ring, keys of an endpoint that goes move, and no others."""
    return max(pool, key=lambda load: load.worth(now) / -math.log(_fraction(_mixed(key ^ load.mark))))


def hash_of(data: bytes) -> int:
    """64 bits, the same in both engines: FNV-1a, mixed so that similar texts share nothing."""
    made = 0xCBF29CE484222325
    for byte in data:
        made = (made ^ byte) * 0x100000001B3 & _WORD
    return _mixed(made)


def _mixed(word: int) -> int:
    """SplitMix64's last steps."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31


def _fraction(word: int) -> float:
    """In (0, 1)."""
    return ((word >> 11) + 0.5) / (1 << 53)


def _two(pool: Sequence[Load], chance: Chance) -> tuple[Load, Load]:
    one = int(chance() * len(pool))
    other = (one + 1 + int(chance() * (len(pool) - 1))) % len(pool)
    return pool[one], pool[other]


def _cost(load: Load, beside: Load, now: float) -> float:
    """The expected wait behind what is already there. Not measured yet: as quick as the other, so that it gets measured."""
    measured = load if load.samples > WARM_UP else beside
    rtt_s = DEFAULT_RTT_S
    if measured.samples > WARM_UP:  # what was slow long ago may be quick again
        rtt_s = max(measured.rtt_s * math.exp(-max(0.0, now - measured.seen_at) / DECAY_S), 1e-6)
    return rtt_s * (load.in_flight + 1) / load.worth(now)
