"""The gate of a rate: so many calls at once, and so many a second in the long run."""

import math
from collections import Counter
from typing import NamedTuple

from proxy.contract.gates import MAX_CALLERS, GateSpec, GateState, RateGate
from proxy.contract.plan import Cause
from proxy.engine.portable.passing import Passed, Refused, Told, Waiting


class _Bucket(NamedTuple):
    tokens: float
    at: float


class Rate:
    """See RateGate: a bucket of tokens for each caller. Mutable state: what is inside; the buckets in two generations, of which the older
    is dropped once the younger is full.
    """

    __slots__ = ("_inside", "_left", "_old", "_refused", "_spec", "_young")

    def __init__(self, spec: RateGate) -> None:
        self._spec: RateGate | None = spec  # None: everybody may come in
        self._young: dict[str, _Bucket] = {}
        self._old: dict[str, _Bucket] = {}
        self._inside = 0
        self._refused = 0
        self._left: Counter[str] = Counter()

    def enter(self, now: float, chance: float, who: str) -> Passed | Waiting | Refused:
        """Come in for a token."""
        if self._spec is not None:
            tokens = self._take(self._spec, now, "" if self._spec.is_shared else who)
            if tokens < 1:
                self._refused += 1
                return _refusal(self._spec, who or "a local socket", (1 - tokens) / self._spec.per_s)
        self._inside += 1
        return self

    def _take(self, spec: RateGate, now: float, who: str) -> float:
        """How many tokens there were; one is taken where there was one."""
        before = self._young.get(who) or self._old.get(who) or _Bucket(spec.burst, now)
        tokens = min(float(spec.burst), before.tokens + (now - before.at) * spec.per_s)
        if who not in self._young and len(self._young) >= MAX_CALLERS:
            self._young, self._old = {}, self._young
        self._young[who] = _Bucket(tokens - (tokens >= 1), now)
        return tokens

    def leave(self, cause: Cause | None, now: float) -> None:
        """One is out."""
        self._inside -= 1
        self._left["" if cause is None else cause.value] += 1

    def change(self, spec: GateSpec) -> None:
        """Another rate, for the buckets as they are."""
        assert isinstance(spec, RateGate)
        self._spec = spec

    def open(self) -> None:
        """No bound any more."""
        self._spec = None

    def state(self) -> GateState:
        """See Gate."""
        refused = {"rate": self._refused} if self._refused else {}
        return GateState(inside=self._inside, waiting=0, left=dict(self._left), refused=refused)

    def note_lag(self, lag_s: float) -> None:
        """Of no concern here."""


def _refusal(spec: RateGate, who: str, again_s: float) -> Refused:
    """For draft-ietf-httpapi-ratelimit-headers-10: which limit, that nothing is left of it, and in how many seconds there is."""
    if not spec.name:
        return Refused(Cause.RATE, f"from {who}")
    whole_s = max(1, math.ceil(again_s))
    name, policy = spec.name.encode(), spec.policy.encode()
    headers = (
        (b"retry-after", b"%d" % whole_s),
        (b"ratelimit-policy", policy),
        (b"ratelimit", b'"%b";r=0;t=%d' % (name, whole_s)),
    )
    of = "all callers" if spec.is_shared else who
    detail = f"from {of}: the limit {spec.name} is used up, try again in {whole_s} s"
    return Refused(Cause.RATE, detail, Told(headers, again_s))
