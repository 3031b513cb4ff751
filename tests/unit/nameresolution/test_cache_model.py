from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nameresolution.cache import Cache, Lifetimes
from nameresolution.resolver import AppName, Endpoint, Found, SourceFailure

NAMES = [AppName(app_id, "default") for app_id in ("cart", "pay", "ship")]
SOURCES = ("host registry", "mdns")
TIMES = Lifetimes(budget_s=2.0, negative_s=0.25, forget_s=5.0, stale_s=20.0, max_names=2)


def found_by(source: str) -> list[Found]:
    one = Endpoint(host="10.0.0.1", port=1, instance="a", source=source)
    two = Endpoint(host="10.0.0.2", port=1, instance="b", source=source)
    return [(one,), (one, two), SourceFailure(reason="none", missing=True), SourceFailure(reason="broken")]


class CacheMachine(RuleBasedStateMachine):
    """Any order of wants, reports and time: the promises to callers hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cache = Cache(SOURCES, TIMES)
        self.flights: set[AppName] = set()
        self.had: set[AppName] = set()

    @rule(name=st.sampled_from(NAMES))
    def want(self, name: AppName) -> None:
        begun = self.cache.want(name, self.now)
        assert not (begun and name in self.flights and name not in self.cache.sets)
        if begun:
            self.flights.add(name)

    @rule(name=st.sampled_from(NAMES), source=st.sampled_from(SOURCES), which=st.integers(0, 3))
    def report(self, name: AppName, source: str, which: int) -> None:
        published = self.cache.report(source, name, found_by(source)[which], self.now)
        if published is not None:
            assert self.cache.sets[name] is published
            self.had |= {name} if published.endpoints else set()
            self.flights.discard(name)

    @rule(seconds=st.sampled_from([0.1, 0.25, 1.0, 2.0, 6.0, 25.0]))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(50):
            next_at = self.cache.next_at()
            if next_at is None or next_at > end:
                break
            self.now = max(self.now, next_at)
            ticked = self.cache.tick(self.now)
            self.flights -= {changed.name for changed in ticked.changed}
            self.flights -= set(ticked.forgotten)
        else:
            raise AssertionError("time does not pass: next_at stays in the past")
        self.now = end

    @invariant()
    def every_published_set_is_watched_and_names_are_bounded(self) -> None:
        assert set(self.cache.sets) <= set(self.cache.names())
        assert len(self.cache.names()) <= TIMES.max_names

    @invariant()
    def no_caller_waits_longer_than_the_budget(self) -> None:
        """Whatever has no set is in a flight, whose end is due, will be forgotten, or is listened for as somebody had it."""
        if any(name not in self.cache.sets for name in set(self.cache.names()) - self.had):
            assert self.cache.next_at() is not None

    @invariant()
    def an_empty_set_expires_soon(self) -> None:
        if any(not found.endpoints for found in self.cache.sets.values()):
            next_at = self.cache.next_at()
            assert next_at is not None
            assert next_at <= self.now + TIMES.budget_s


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(stateful_step_count=30)
