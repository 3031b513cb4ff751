"""When to ask for which app-id, and which instances are alive; pure, time is passed in.

A cold lookup asks often and early, because a datagram may be lost; what is known is asked for again long before its
TTL ends, so that a live instance never drops out.
"""

from __future__ import annotations

from msgspec import Struct, field

from nameresolution.mdns.records import Goodbye, Sighting
from nameresolution.resolver import Endpoint

QUESTIONS_S = (0.0, 0.02, 0.12, 0.4, 0.9)
# Asked only while nobody has answered: with 30 % loss each way five questions fail 3.5 % of lookups, nine 0.2 %.
MORE_QUESTIONS_S = (1.15, 1.4, 1.65, 1.85)
REFRESH_S = 30.0
REFRESH_SHARE = 0.8  # of the TTL, where that is sooner
RETRY_S = 10.0  # between refreshes that an instance does not answer
MAX_INSTANCES = 1000  # of one app-id; a host that invents instances must not fill our memory


class Due(Struct, frozen=True, kw_only=True):
    """What to do now: app-ids to ask for, those whose instances changed, those without an answer."""

    ask: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


class _Held(Struct):
    """An instance and when it was heard last."""

    sighting: Sighting
    seen_at: float

    def expires_at(self) -> float:
        return self.seen_at + self.sighting.life_s

    def refresh_at(self) -> float:
        return self.seen_at + min(REFRESH_S, REFRESH_SHARE * self.sighting.life_s)


class _Sought(Struct):
    """One watched app-id. `flight_at` is when the lookup under way began.

    Without instances, `lost` says that all fell silent and `left` that the last one said goodbye.
    """

    instances: dict[str, _Held] = field(default_factory=dict)
    flight_at: float | None = None
    asked: int = 0
    asked_at: float = 0.0
    lost: bool = False
    left: bool = False

    def next_question_at(self) -> float | None:
        if self.flight_at is None:
            return None
        times = QUESTIONS_S if self.instances else QUESTIONS_S + MORE_QUESTIONS_S
        return self.flight_at + times[self.asked] if self.asked < len(times) else None

    def refresh_at(self) -> float | None:
        if self.flight_at is not None:
            return None
        if self.lost:
            return self.asked_at + REFRESH_S
        if not self.instances:
            return None
        return max(self.asked_at + RETRY_S, min(held.refresh_at() for held in self.instances.values()))


class Browser:
    """Owns `_sought`, the watched app-ids; a flight begins with `watch` and ends after `budget_s`."""

    def __init__(self, budget_s: float = 2.0) -> None:
        self.budget_s = budget_s
        self._sought: dict[str, _Sought] = {}

    def watch(self, app_id: str, now: float) -> None:
        """Begin a lookup unless one is under way."""
        sought = self._sought.setdefault(app_id, _Sought())
        if sought.flight_at is None:
            sought.flight_at = now
            sought.asked = 0
            sought.left = False

    def forget(self, app_id: str) -> None:
        """Drop an app-id and its instances."""
        self._sought.pop(app_id, None)

    def watched(self) -> tuple[str, ...]:
        """The app-ids that are watched."""
        return tuple(self._sought)

    def hear(self, sighting: Sighting, now: float) -> bool:
        """Take in one instance; whether the endpoints of its app-id changed."""
        sought = self._sought.get(sighting.app_id)
        if sought is None:
            return False
        before = sought.instances.get(sighting.key)
        if before is None and len(sought.instances) >= MAX_INSTANCES:
            return False
        changed = before is None or before.sighting.endpoint() != sighting.endpoint() or sought.lost
        sought.instances[sighting.key] = _Held(sighting, now)
        sought.lost = False
        return changed

    def leave(self, goodbye: Goodbye) -> tuple[str, ...]:
        """Remove an instance at once; the app-ids that this changed."""
        changed = []
        for app_id, sought in self._sought.items():
            gone = [
                key
                for key, held in sought.instances.items()
                if held.sighting.instance_name == goodbye.instance_name
                and goodbye.instance in {"", held.sighting.instance}
            ]
            for key in gone:
                del sought.instances[key]
            if gone:
                sought.left = not sought.instances
                changed.append(app_id)
        return tuple(changed)

    def endpoints(self, app_id: str) -> tuple[Endpoint, ...]:
        """The live endpoints of an app-id."""
        sought = self._sought.get(app_id)
        return tuple(held.sighting.endpoint() for held in sought.instances.values()) if sought else ()

    def asked(self, app_id: str) -> int:
        """How many questions the latest lookup sent."""
        sought = self._sought.get(app_id)
        return sought.asked if sought else 0

    def is_lost(self, app_id: str) -> bool:
        """Whether every instance fell silent without a goodbye."""
        sought = self._sought.get(app_id)
        return sought is not None and sought.lost

    def has_left(self, app_id: str) -> bool:
        """Whether the last instance said goodbye since the latest lookup began."""
        sought = self._sought.get(app_id)
        return sought is not None and sought.left and not sought.instances

    def due(self, now: float) -> Due:
        """Let time pass."""
        ask: list[str] = []
        changed: list[str] = []
        silent: list[str] = []
        for app_id, sought in self._sought.items():
            if self._is_to_ask(sought, now):
                ask.append(app_id)
            expired = [key for key, held in sought.instances.items() if now >= held.expires_at()]
            for key in expired:
                del sought.instances[key]
            if expired:
                sought.lost = not sought.instances
                changed.append(app_id)
            if sought.flight_at is not None and now >= sought.flight_at + self.budget_s:
                sought.flight_at = None
                if not sought.instances:
                    silent.append(app_id)
        return Due(ask=tuple(ask), changed=tuple(changed), silent=tuple(silent))

    def next_at(self) -> float | None:
        """The next moment at which `due` has something to do, None if never."""
        moments: list[float] = []
        for sought in self._sought.values():
            over_at = None if sought.flight_at is None else sought.flight_at + self.budget_s
            wanted = (sought.next_question_at(), sought.refresh_at(), over_at)
            moments += [moment for moment in wanted if moment is not None]
            moments += [held.expires_at() for held in sought.instances.values()]
        return min(moments, default=None)

    @staticmethod
    def _is_to_ask(sought: _Sought, now: float) -> bool:
        due = False
        while (question_at := sought.next_question_at()) is not None and question_at <= now:
            sought.asked += 1
            due = True
        refresh_at = sought.refresh_at()
        if due or (refresh_at is not None and refresh_at <= now):
            sought.asked_at = now
            return True
        return False
