"""The cache's lifetimes, single flight, negative entries and stale-on-error; pure, time is passed in.

Knows no resolver and no event loop: `directory` drives it.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field
from msgspec.structs import replace

from nameresolution.merge import Own, Report, describe, is_of_use, merge
from nameresolution.resolver import AppName, EndpointSet, Found, SourceFailure

_BEFORE = "before the change"  # what sources that are gone knew, as if a source of its own had said it


class Lifetimes(Struct, frozen=True, kw_only=True):
    """The limits of the cache, in seconds and names."""

    budget_s: float = 3.0  # a backstop: mDNS gives up 2.0 after it began, and says more than "no answer"
    negative_s: float = 0.25  # a callee that starts just now must be found by the next call
    forget_s: float = 30.0  # a name that nobody has stops being listened for
    stale_s: float = 3600.0
    max_lost: int = 1000  # names that nobody has any more are listened for all the time: whoever comes back is known at once
    max_names: int = 4096  # an app that asks for made-up names must not grow us without limit


class Ticked(Struct, frozen=True, kw_only=True):
    """What a moment in time changed: sets to publish and names that are no longer watched."""

    changed: tuple[EndpointSet, ...] = ()
    forgotten: tuple[AppName, ...] = ()


class _Known(Struct):
    """One watched name. `flight_until` and `negative_until` are moments, at most one of them set. `was_found`: somebody had it once;
    `was_missed`: a whole lookup ended with nobody.
    """

    reports: dict[str, Report]
    wanted_at: float
    flight_until: float | None = None
    negative_until: float | None = None
    was_found: bool = False
    was_missed: bool = False
    failed_at: dict[str, float] = field(default_factory=dict)  # source -> since when its endpoints are stale
    told_at: dict[str, float] = field(default_factory=dict)  # source -> when it gave news last


class Cache:
    """Owns `sets` (the newest published set of each name), `_names` (what each source said), `_evicted` (names dropped
    for want of room, not yet reported by `tick`).

    Invariant: every key of `sets` is a key of `_names`; an empty set in `sets` has its `negative_until`.
    """

    def __init__(self, sources: Iterable[str], lifetimes: Lifetimes | None = None) -> None:
        self._sources = tuple(sources)
        self._lifetimes = lifetimes or Lifetimes()
        self._own = Own()
        self._names: dict[AppName, _Known] = {}
        self._evicted: list[AppName] = []
        self.sets: dict[AppName, EndpointSet] = {}

    def identify(self, own: Own, now: float) -> tuple[EndpointSet, ...]:
        """Say who we are; returns the sets that this changed."""
        self._own = own
        settled = (self._settle(name, known, now) for name, known in self._names.items() if name in self.sets)
        return tuple(changed for changed in settled if changed is not None)

    def replace_sources(self, sources: Iterable[str], now: float) -> tuple[AppName, ...]:
        """Go by other sources; the names that they are to be asked for. Endpoints that were known stay until those have answered."""
        self._sources = tuple(sources)
        for name, known in self._names.items():
            published = self.sets.get(name)
            known.reports = {source: Report(source=source, pending=True) for source in self._sources}
            known.failed_at.clear()
            known.told_at.clear()
            if published is not None and published.endpoints:
                known.reports[_BEFORE] = Report(source=_BEFORE, endpoints=published.endpoints)
                if published.stale:
                    self._doubt_before(known, now)
                self.sets[name] = merge(
                    name, known.reports.values(), self._own
                )  # the same, but for what was tried
            else:
                self.sets.pop(name, None)
            known.flight_until = now + self._lifetimes.budget_s
            known.negative_until = None
            known.was_missed = False
        return tuple(self._names)

    def want(self, name: AppName, now: float) -> bool:
        """Note that a name is needed; True if a flight began and the sources are to be asked."""
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= self._lifetimes.max_names and not self._evict():
                return False
            known = self._names[name] = _Known(reports={}, wanted_at=now)
        known.wanted_at = now
        published = self.sets.get(name)
        settled = published is not None and not published.stale
        if known.flight_until is not None or settled:
            return False
        known.flight_until = now + self._lifetimes.budget_s
        for source in self._sources:
            before = known.reports.get(source, Report(source=source))
            known.reports[source] = replace(before, pending=True)
        return True

    def report(self, source: str, name: AppName, found: Found, now: float) -> EndpointSet | None:
        """Take in the word of one source; the set to publish if that changed it."""
        known = self._names.get(name)
        if known is None or source not in self._sources:
            return None
        known.told_at[source] = now
        before = known.reports.get(source, Report(source=source))
        if isinstance(found, SourceFailure):
            kept = () if found.missing else before.endpoints
            known.reports[source] = Report(source=source, endpoints=kept, failure=found)
            if kept:
                known.failed_at.setdefault(source, now)
        else:
            answered = Report(source=source, endpoints=found)
            # A stranger's answer may come first: ours still has until the end of the flight.
            waits = before.pending and not is_of_use(answered, name, self._own)
            known.reports[source] = replace(answered, pending=waits)
        if not (isinstance(found, SourceFailure) and known.reports[source].endpoints):
            known.failed_at.pop(source, None)
        self._review_before(known, now)
        return self._settle(name, known, now)

    def tick(self, now: float) -> Ticked:
        """Let time pass: end flights, negatives and stale sets, drop names that nobody has or wants."""
        changed: list[EndpointSet] = []
        forgotten, self._evicted = self._evicted, []
        for name, known in list(self._names.items()):
            published = self._age(name, known, now)
            if published is not None:
                changed.append(published)
            if self._is_passing(name, known) and now >= known.wanted_at + self._lifetimes.forget_s:
                del self._names[name]
                forgotten.append(name)
        lost = [
            name
            for name, known in self._names.items()
            if known.was_found and self._is_forgettable(name, known)
        ]
        for name in lost[: max(0, len(lost) - self._lifetimes.max_lost)]:
            del self._names[name]
            forgotten.append(name)
        return Ticked(changed=tuple(changed), forgotten=tuple(forgotten))

    def next_at(self) -> float | None:
        """The next moment at which `tick` has something to do, None if never."""
        moments: list[float] = [0.0] if self._evicted else []
        for name, known in self._names.items():
            moments += [moment for moment in (known.flight_until, known.negative_until) if moment is not None]
            moments += [since + self._lifetimes.stale_s for since in known.failed_at.values()]
            if self._is_passing(name, known):
                moments.append(known.wanted_at + self._lifetimes.forget_s)
        return min(moments, default=None)

    def tried(self, name: AppName) -> tuple[str, ...]:
        """One line a source: what came of asking it for this name last."""
        known = self._names.get(name)
        if known is None:
            return ("not looked for yet",)
        return tuple(describe(report, name, self._own) for report in known.reports.values())

    @property
    def own(self) -> Own:
        """Who asks."""
        return self._own

    def ages(self, name: AppName, now: float) -> dict[str, float]:
        """How long ago each source gave news of a name, in seconds; empty where the name is not looked for."""
        known = self._names.get(name)
        return {} if known is None else {source: now - at for source, at in known.told_at.items()}

    def is_watched(self, name: AppName) -> bool:
        """Whether the sources were asked for a name and go on listening for it."""
        return name in self._names

    def was_missed(self, name: AppName) -> bool:
        """Whether a full lookup of a name found none since the sources began to listen for it."""
        known = self._names.get(name)
        return known is not None and known.was_missed

    def names(self) -> tuple[AppName, ...]:
        """Every name that is watched."""
        return tuple(self._names)

    def _settle(self, name: AppName, known: _Known, now: float) -> EndpointSet | None:
        merged = merge(name, known.reports.values(), self._own)
        published = self.sets.get(name)
        if merged.endpoints:
            known.was_found = True
            if not any(report.pending for report in known.reports.values()):
                known.flight_until = None
            known.negative_until = None
            if published is not None and _is_same(published, merged):
                self.sets[name] = merged
                return None
            self.sets[name] = merged
            return merged
        if published is not None and not published.endpoints and known.flight_until is None:
            self.sets[name] = merged
            return None
        lost_all = published is not None and bool(published.endpoints)
        if not lost_all and any(report.pending for report in known.reports.values()):
            return None
        return self._publish_negative(name, known, merged, now)

    def _publish_negative(self, name: AppName, known: _Known, merged: EndpointSet, now: float) -> EndpointSet:
        known.flight_until = None
        known.was_missed = True
        known.negative_until = now + self._lifetimes.negative_s
        self.sets[name] = merged
        return merged

    def _age(self, name: AppName, known: _Known, now: float) -> EndpointSet | None:
        changed = None
        for source, since in list(known.failed_at.items()):
            if now >= since + self._lifetimes.stale_s:
                del known.failed_at[source]
                known.reports[source] = replace(known.reports[source], endpoints=())
                changed = self._settle(name, known, now) or changed
        if known.flight_until is not None and now >= known.flight_until:
            known.flight_until = None
            silent = SourceFailure(reason=f"no answer within {self._lifetimes.budget_s:.1f} s")
            for source, report in known.reports.items():
                if report.pending:
                    failure = report.failure if report.endpoints else silent
                    known.reports[source] = replace(report, pending=False, failure=failure)
            if self._review_before(known, now):
                changed = self._settle(name, known, now) or changed
            merged = merge(name, known.reports.values(), self._own)
            if not merged.endpoints:
                changed = self._publish_negative(name, known, merged, now)
        if known.negative_until is not None and now >= known.negative_until:
            known.negative_until = None
            self.sets.pop(name, None)
        return changed

    def _review_before(self, known: _Known, now: float) -> bool:
        """Once all sources have been heard: drop what those before them knew, or keep it as stale where every one of them failed."""
        before = known.reports.get(_BEFORE)
        said = [report for source, report in known.reports.items() if source != _BEFORE]
        if before is None or any(report.pending for report in said):
            return False
        if any(report.failure is None or report.failure.missing for report in said):
            del known.reports[_BEFORE]
            known.failed_at.pop(_BEFORE, None)
            return True
        if before.failure is not None:
            return False
        self._doubt_before(known, now)
        return True

    def _doubt_before(self, known: _Known, now: float) -> None:
        failure = SourceFailure(reason="no source has answered since")
        known.reports[_BEFORE] = replace(known.reports[_BEFORE], failure=failure)
        known.failed_at[_BEFORE] = now

    def _is_passing(self, name: AppName, known: _Known) -> bool:
        """Whether a name is listened for only as long as it is wanted: nobody ever had it."""
        return not known.was_found and self._is_forgettable(name, known)

    def _is_forgettable(self, name: AppName, known: _Known) -> bool:
        return name not in self.sets and known.flight_until is None

    def _evict(self) -> bool:
        """Make room by dropping names without endpoints: those that nobody ever had first, then what was wanted longest ago.

        Several at once, as finding them looks at all.
        """
        spare = [name for name, known in self._names.items() if self._is_forgettable(name, known)]
        spare.sort(key=lambda name: (self._names[name].was_found, self._names[name].wanted_at))
        dropped = spare[: max(1, self._lifetimes.max_names // 16)]
        for name in dropped:
            del self._names[name]
        self._evicted += dropped
        return bool(dropped)


def _is_same(one: EndpointSet, other: EndpointSet) -> bool:
    """Equal for the purpose of dialling; `tried` differs with every lookup."""
    return one.endpoints == other.endpoints and one.stale == other.stale
