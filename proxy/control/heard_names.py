"""What this proxy has heard of other apps' names: who served them and is gone, how they are spelt, which gRPC services they claim. Pure.

For error messages only: calls use the directory's endpoints. Everything is bounded; what was heard first is forgotten first.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from nameresolution.host_registry import Entry
from nameresolution.resolver import AppName, EndpointSet
from proxy.deciding.callee import Callee

MAX_NAMES = 1_000
MAX_SERVICES = 4_096
_NEAREST = 3
_MAX_COMPARED = 60  # bytes of a name; app-ids are no longer

Claimed = Literal["declared", "learnt"]


class _Heard(Struct):
    """One name. `lost_at`: epoch seconds when its last instance went away, None while it has one or if it never had any."""

    exists: bool = False  # not only our own settings speak of it
    is_found: bool = False  # the directory has endpoints
    is_serving: bool = False  # the host's registry has an instance that takes calls
    served_by: tuple[str, ...] = ()
    is_idle: bool = False  # the host's registry has an instance that takes none
    lost_at: float | None = None
    was_looked_for: bool = False  # and nobody was found

    def turn(self, *, found: bool | None = None, serving: bool | None = None, now: float) -> None:
        """Take in the directory's or the registry's word; the two tell the same news at different moments."""
        was_served = self.is_found if serving is None else self.is_serving and not self.is_found
        is_served = bool(found or (serving and not self.is_serving))
        self.is_found = self.is_found if found is None else found
        self.is_serving = self.is_serving if serving is None else serving
        if is_served:
            self.lost_at, self.was_looked_for = None, False
        elif was_served and not (found or serving) and self.lost_at is None:
            self.lost_at = now


class HeardNames:
    """Owns `_names`, what was heard of each, and `_claims`, who claims or last claimed a service.

    `look_for`: has the sources asked for a name, in the background.
    """

    def __init__(
        self,
        own: AppName,
        configured: Iterable[AppName] = (),
        look_for: Callable[[AppName], None] = lambda _: None,
    ) -> None:
        self._own = own
        self._look_for = look_for
        self.generation = 0  # counts changes of what `spellings` says
        self._names: dict[AppName, _Heard] = {name: _Heard() for name in configured}
        self._names[own] = _Heard(exists=True)
        self._claims: dict[str, dict[str, Claimed]] = {}
        self._folded: Mapping[str, tuple[AppName, ...]] = {}
        self._fold()

    # --- news ------------------------------------------------------------------------------------------------------------

    def found(self, endpoints: EndpointSet, now: float) -> None:
        """The directory's newest word on a name."""
        if endpoints.endpoints:
            self._hear(endpoints.name)
        heard = self._names.get(endpoints.name)
        if heard is None:
            return  # asked for, and unknown: not heard of
        heard.turn(found=bool(endpoints.endpoints), now=now)
        if endpoints.endpoints:
            heard.served_by = tuple(f"{end.address} ({end.source})" for end in endpoints.endpoints)
        else:
            heard.was_looked_for = True

    def registered(self, entries: Iterable[Entry], mesh: str, now: float) -> None:
        """The host's registry as it is now; entries of another mesh are not heard."""
        by_name: dict[AppName, list[Entry]] = {}
        for entry in entries:
            if entry.mesh == mesh:
                by_name.setdefault(AppName(entry.app_id, entry.namespace), []).append(entry)
        for name in by_name:
            self._hear(name)
        for name, heard in self._names.items():
            here = by_name.get(name, ())
            heard.turn(serving=any(entry.serving for entry in here), now=now)
            heard.is_idle = any(not entry.serving for entry in here)
            if heard.is_serving and not heard.is_found:
                heard.served_by = tuple(
                    f"127.0.0.1:{entry.peer_port} (pid {entry.pid})" for entry in here if entry.serving
                )
        self._claim(entry for named in by_name.values() for entry in named)

    def _hear(self, name: AppName) -> None:
        heard = self._names.get(name)
        if heard is not None and heard.exists:
            return
        while len(self._names) >= MAX_NAMES:
            oldest = next((known for known in self._names if known != self._own), None)
            if oldest is None:
                break
            del self._names[oldest]
        self._names[name] = _Heard(exists=True)
        before = self._folded
        self._fold()
        if self._folded != before or str(name) in self._folded:
            self.generation += 1

    def _fold(self) -> None:
        folded: dict[str, list[AppName]] = {}
        for name in (name for name, heard in self._names.items() if heard.exists):
            lower = str(name).lower()
            if lower != str(name):
                folded.setdefault(lower, []).append(name)
        self._folded = {lower: tuple(sorted(names, key=str)) for lower, names in folded.items()}

    # --- answers -----------------------------------------------------------------------------------------------------------

    def is_known(self, name: AppName) -> bool:
        """Whether exactly this name was heard of."""
        return name in self._names

    def spellings(self, callee: Callee) -> tuple[Callee, ...]:
        """Those whom a name in lower case may mean as nobody of exactly this name was heard of: clients lower what they take for hosts."""
        exact = AppName(callee.app_id, callee.namespace)
        heard = self._names.get(exact)
        if heard is not None and heard.exists:
            return ()
        means = self._folded.get(str(exact), ())
        if means:
            self._look_for(exact)  # it may be on another host; then it wins
        is_qualified = "." in callee.text
        return tuple(
            Callee(name.app_id, name.namespace, str(name) if is_qualified else name.app_id) for name in means
        )

    def absent(self, callee: Callee) -> str | None:
        """Since when a name that was heard of has no instance that takes calls, and who served it; None where it has one.

        Empty where it was never served but is registered: what the registry says of it stands in what was tried.
        """
        heard = self._names.get(AppName(callee.app_id, callee.namespace))
        if heard is None or heard.is_found:
            return None
        if heard.lost_at is None:
            return "" if heard.is_idle else None
        since = datetime.fromtimestamp(heard.lost_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"gone since {since}, served until then by {', '.join(heard.served_by)}"

    def is_absent_everywhere(self, name: AppName) -> bool:
        """Whether a name that was heard of was looked for since it was served last, and the sources knew nobody."""
        heard = self._names.get(name)
        return heard is not None and heard.was_looked_for and (heard.is_idle or heard.lost_at is not None)

    def nearest(self, app_id: str, namespace: str) -> tuple[str, ...]:
        """Names that resemble one that is not known, the likeliest first, as a caller in the own namespace writes them."""
        known = {self._written(name): name for name in self._names if name.app_id != self._own.app_id}
        same = [text for text, name in known.items() if name.app_id == app_id and name.namespace != namespace]
        return tuple(dict.fromkeys((*same, *_nearest(app_id, known))))[:_NEAREST]

    def nearest_services(self, service: str) -> tuple[str, ...]:
        """Claimed services that resemble one that nobody claims, with who serves each."""
        close = _nearest(service, self._claims)
        return tuple(f"{found} ({' and '.join(sorted(self._claims[found]))})" for found in close)

    def _written(self, name: AppName) -> str:
        return name.app_id if name.namespace == self._own.namespace else str(name)

    # --- services ------------------------------------------------------------------------------------------------------------

    def _claim(self, entries: Iterable[Entry]) -> None:
        claims: dict[str, dict[str, tuple[bool, Claimed]]] = {}
        settled: set[str] = set()  # app-ids that serve, and have said what
        for entry in entries:
            if entry.namespace == self._own.namespace:
                settled |= {entry.app_id} if entry.serving and entry.grpc_services else set()
                how: Claimed = "learnt" if entry.services_learnt else "declared"
                for service in entry.grpc_services:
                    apps = claims.setdefault(service, {})
                    apps[entry.app_id] = (entry.serving or apps.get(entry.app_id, (False,))[0], how)
        for service, apps in claims.items():
            serving = {app: how for app, (is_serving, how) in apps.items() if is_serving}
            self._claims.pop(service, None)
            self._claims[service] = serving or {app: how for app, (_, how) in apps.items()}
        for service in self._claims.keys() - claims.keys():
            former = {app: how for app, how in self._claims[service].items() if app not in settled}
            self._claims[service] = former
            if not former:
                del self._claims[service]
        for service in list(self._claims)[: max(0, len(self._claims) - MAX_SERVICES)]:
            del self._claims[service]

    def claims(self) -> dict[str, dict[str, Claimed]]:
        """Each service with the app-ids that claim it, or did last, and how each came to it."""
        return {service: dict(apps) for service, apps in self._claims.items()}


def _nearest(text: str, known: Iterable[str]) -> list[str]:
    by_lower = {name[:_MAX_COMPARED].lower(): name for name in known}
    close = difflib.get_close_matches(text[:_MAX_COMPARED].lower(), by_lower, n=_NEAREST, cutoff=0.7)
    return [by_lower[found] for found in close]
