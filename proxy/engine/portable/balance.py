"""What is known of each endpoint of a cluster: its load, its latency (an average that rises at once and decays slowly) and its failures.

Pure: the clock is passed in. The native engine's is kept in step by `tests/vectors/balance.json`, as is `choosing`, which goes by it.
"""

import math

from msgspec import Struct, field

from proxy.contract.balancing import EjectionReason

DEFAULT_RTT_S = 0.030  # what an endpoint costs before it was measured
DECAY_S = 10.0
WARM_UP = 5  # answers before an endpoint's latency counts
REFUSED_RTT_S = 1.0  # what an endpoint costs that refused a call
EJECT_FIRST_S = 1.0  # a restarting endpoint is tried again soon; one that stays dead, each time half as often
EJECT_MAX_S = 30.0
AVOID_S = 1.0  # at a time, while an endpoint does not answer a PING
AWAY_FIRST_S = (
    30.0  # an address that shows a wrong identity or none is no instance: it is looked at again seldom
)
AWAY_MAX_S = 300.0
_DOUBLINGS = (
    16  # beyond any maximum; without a bound the number outgrows a float in some hours of a dead endpoint
)


LEAST_SHARE = 0.1  # of its calls, for an endpoint that has just come back


class Standing(Struct):
    """How an endpoint's answers were: `outliers` keeps it.

    out_until: 0 where it takes calls; after that moment one call at a time probes it, until probed_until at most. times: how often it was
    left out. back_at: when it came back, for slow_s of which it has fewer calls. calls, failed: since success rates were last compared.
    """

    in_a_row: int = 0
    calls: int = 0
    failed: int = 0
    times: int = 0
    out_until: float = 0.0
    probed_until: float = 0.0
    back_at: float = 0.0
    slow_s: float = 0.0
    reason: EjectionReason = "failures"

    def is_out(self, now: float) -> bool:
        """Whether it takes no calls now, but where too many are out."""
        return self.out_until > 0.0 and (now < self.out_until or now < self.probed_until)

    def share(self, now: float) -> float:
        """Of its calls, as much as it gets now."""
        passed = now - self.back_at
        return 1.0 if self.out_until or passed >= self.slow_s else max(LEAST_SHARE, passed / self.slow_s)

    def forgive(self, now: float, interval_s: float) -> None:
        """Each interval since it came back takes one time back."""
        self.times = max(0, self.times - int((now - self.back_at) / interval_s))


class Load(Struct):
    """What one engine knows of one endpoint. Owned by the cluster that holds it.

    proven: its certificate was the right one (without mutual TLS: it was reached, and speaks as a peer does). rank: of its source, lower
    before higher, among those that are not. mismatches: how often in a row its certificate was not the right one. proving: a connection
    to find that out is under way. turn: of round-robin. mark: of ring-hash, its address as a number.
    """

    address: str
    weight: int = 1
    in_flight: int = 0
    rtt_s: float = DEFAULT_RTT_S
    seen_at: float = 0.0
    samples: int = 0
    failures: int = 0
    ejected_until: float = 0.0
    avoided_until: float = 0.0
    rank: int = 0
    proven: bool = True
    mismatches: int = 0
    proving: bool = False
    turn: float = 0.0
    mark: int = 0
    standing: Standing = field(default_factory=Standing)

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
        self.ejected_until = self.avoided_until = 0.0

    def yield_way(self) -> None:
        """It takes calls, but not this one: let others take the next."""
        self.rtt_s = max(self.rtt_s, REFUSED_RTT_S)

    def penalize(self, took_s: float, now: float) -> None:
        """It failed or refused a call, which may be quick: as if that took at least twice as long as its answers do, so that others are
        preferred.
        """
        self.rtt_s = max(self.rtt_s, took_s, min(2 * self.rtt_s, REFUSED_RTT_S))
        self.seen_at = now

    def eject(self, now: float) -> None:
        """It refused or broke a connection: leave it alone, each time twice as long."""
        if now >= self.ejected_until:
            self.failures += 1
            self.ejected_until = now + _doubled(EJECT_FIRST_S, self.failures, EJECT_MAX_S)

    def avoid(self, now: float) -> None:
        """It does not answer just now: leave it alone for a moment, without counting that as a failure."""
        self.avoided_until = now + AVOID_S

    def put_away(self, now: float) -> None:
        """It could not prove to be an instance of this app."""
        self.proven = False
        if now >= self.ejected_until:
            self.mismatches += 1
            self.ejected_until = now + _doubled(AWAY_FIRST_S, self.mismatches, AWAY_MAX_S)

    def worth(self, now: float) -> float:
        """Its weight, less where it has just come back."""
        return self.weight * self.standing.share(now)

    def tier(self, now: float, *, heeds_answers: bool = True) -> int:
        """Endpoints of a lower tier are chosen before those of a higher one. heeds_answers: who is left out for them comes later.

        What was only announced may be anybody: it comes after what has proven itself, even where that is ejected just now, unless this
        host itself knows of it; and what was seen to be somebody else comes last.
        """
        is_ejected = now < max(self.ejected_until, self.avoided_until)
        if self.proven:
            return 2 if is_ejected or (heeds_answers and self.standing.is_out(now)) else 0
        if self.mismatches:
            return 5
        return 4 if is_ejected else 3 if self.rank else 1


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(most_s, math.ldexp(first_s, min(times - 1, _DOUBLINGS)))
