"""Orders the endpoints of a cluster by load and ejections. Pure: clock and chance are passed in.

The native engine's is kept in step by `tests/vectors/balance.json`.

Power of two choices on in-flight calls and a latency average that rises at once and decays slowly (peak EWMA).
"""

import math
from collections.abc import Callable, Collection, Sequence

from msgspec import Struct

DEFAULT_RTT_S = 0.030  # what an endpoint costs before it was measured
DECAY_S = 10.0
WARM_UP = 5  # answers before an endpoint's latency counts
SAME = 1.9  # costs nearer than this are noise: two equal endpoints share evenly, one more call in flight still counts
REFUSED_RTT_S = 1.0  # what an endpoint costs that refused a call
EJECT_FIRST_S = 1.0  # a restarting endpoint is tried again soon; one that stays dead, each time half as often
EJECT_MAX_S = 30.0
AWAY_FIRST_S = (
    30.0  # an address that shows a wrong identity or none is no instance: it is looked at again seldom
)
AWAY_MAX_S = 300.0
_DOUBLINGS = (
    16  # beyond any maximum; without a bound the number outgrows a float in some hours of a dead endpoint
)


class Load(Struct):
    """What one engine knows of one endpoint. Owned by the cluster that holds it.

    proven: its certificate was the right one (without mutual TLS: it was reached, and speaks as a peer does). rank: of its source, lower
    before higher, among those that are not. mismatches: how often in a row its certificate was not the right one. proving: a connection
    to find that out is under way.
    """

    address: str
    weight: int = 1
    in_flight: int = 0
    rtt_s: float = DEFAULT_RTT_S
    seen_at: float = 0.0
    samples: int = 0
    failures: int = 0
    ejected_until: float = 0.0
    rank: int = 0
    proven: bool = True
    mismatches: int = 0
    proving: bool = False

    def observe(self, took_s: float, now: float) -> None:
        """One attempt got its answer after so long."""
        self.samples += 1
        if self.samples <= WARM_UP or took_s >= self.rtt_s:
            self.rtt_s = took_s  # a first answer pays for what is cold; only later ones tell endpoints apart
        else:
            keep = math.exp(-max(0.0, now - self.seen_at) / DECAY_S)
            self.rtt_s = took_s + (self.rtt_s - took_s) * keep * 0.9
        self.seen_at = now
        self.restore()

    def restore(self) -> None:
        """Nothing is held against it."""
        self.failures = self.mismatches = 0
        self.ejected_until = 0.0

    def yield_way(self) -> None:
        """It takes calls, but not this one: let others take the next."""
        self.rtt_s = max(self.rtt_s, REFUSED_RTT_S)

    def had_no_room(self, took_s: float, now: float) -> None:
        """Its proxy refused the call, which is quick: as if the answer had taken twice as long as they do, so that others are preferred."""
        self.observe(max(took_s, min(2 * self.rtt_s, REFUSED_RTT_S)), now)

    def eject(self, now: float) -> None:
        """It refused or broke a connection: leave it alone, each time twice as long."""
        if now >= self.ejected_until:
            self.failures += 1
            self.ejected_until = now + _doubled(EJECT_FIRST_S, self.failures, EJECT_MAX_S)

    def put_away(self, now: float) -> None:
        """It could not prove to be an instance of this app."""
        self.proven = False
        if now >= self.ejected_until:
            self.mismatches += 1
            self.ejected_until = now + _doubled(AWAY_FIRST_S, self.mismatches, AWAY_MAX_S)

    def tier(self, now: float) -> int:
        """Endpoints of a lower tier are chosen before those of a higher one.

        What was only announced may be anybody: it comes after what has proven itself, even where that is ejected just now, unless this
        host itself knows of it; and what was seen to be somebody else comes last.
        """
        is_ejected = now < self.ejected_until
        if self.proven:
            return 2 if is_ejected else 0
        if self.mismatches:
            return 5
        return 4 if is_ejected else 3 if self.rank else 1


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(most_s, math.ldexp(first_s, min(times - 1, _DOUBLINGS)))


def choose(
    loads: Sequence[Load], tried: Collection[str], now: float, chance: Callable[[], float]
) -> Load | None:
    """The endpoint for the next attempt: untried before tried, then by tier; when all are ejected, any (panic rule).

    chance: in [0, 1); twice to pick two of more, and once between two that cost about the same.
    """
    untried = [load for load in loads if load.address not in tried] or list(loads)
    tiers = [load.tier(now) for load in untried]
    best = min(tiers, default=0)
    pool = [load for load, tier in zip(untried, tiers, strict=True) if tier == best]
    if len(pool) <= 1:
        return pool[0] if pool else None
    first, second = pool if len(pool) == 2 else _two(pool, chance)
    one, other = _cost(first, second, now), _cost(second, first, now)
    if max(one, other) < SAME * min(one, other):
        return first if chance() < 0.5 else second
    return first if one < other else second


def _two(pool: Sequence[Load], chance: Callable[[], float]) -> tuple[Load, Load]:
    one = int(chance() * len(pool))
    other = (one + 1 + int(chance() * (len(pool) - 1))) % len(pool)
    return pool[one], pool[other]


def _cost(load: Load, beside: Load, now: float) -> float:
    """The expected wait behind what is already there. Not measured yet: as quick as the other, so that it gets measured."""
    measured = load if load.samples > WARM_UP else beside
    rtt_s = DEFAULT_RTT_S
    if measured.samples > WARM_UP:  # what was slow long ago may be quick again
        rtt_s = max(measured.rtt_s * math.exp(-max(0.0, now - measured.seen_at) / DECAY_S), 1e-6)
    return rtt_s * (load.in_flight + 1) / load.weight
