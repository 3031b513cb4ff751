"""One name looked up afresh for `postern resolve`: what each source said and when, and which endpoint a call would prefer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nameresolution.directory import Directory
from nameresolution.look_up import Asked, LookUp, look_up
from nameresolution.mdns.records import MDNS_SOURCE
from nameresolution.resolver import AppName, Endpoint, Resolver
from proxy.control.ejections import WORDS
from proxy.control.plane import Control
from proxy.deciding.callee import parse_callee
from proxy.settings.values import Settings

Json = dict[str, Any]
_UNMEASURED_MS: Final = 1.0  # an endpoint that was not called yet is taken to be as quick as the others


class NameTracer:
    """Asks sources of its own, and the directory and the engine for what they know. `sources` makes the sources anew."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        directory: Directory,
        sources: Callable[[], Sequence[Resolver]],
    ) -> None:
        self._settings = settings
        self._control = control
        self._directory = directory
        self._sources = sources

    async def trace(self, asked: str) -> Json:
        """The trace of an app-id, `app.namespace` or gRPC service. Raises: ValueError for what is no name."""
        app = self._control.naming.app_serving(asked)
        callee = parse_callee(app, self._settings.namespace)
        if callee is None:
            raise ValueError(
                f"{asked!r} is not the name of an app: expected an app-id, app.namespace, or a gRPC service that is known"
            )
        name = AppName(callee.app_id, callee.namespace)
        self._directory.want(name)
        looked = await look_up(self._sources(), name, self._directory.own)
        known: Any = self._control.naming.endpoints(str(name)).get(str(name), {})
        ages = self._directory.ages(name)
        return {
            "name": str(name),
            "by": f"{self._settings.app_id}.{self._settings.namespace}",
            "sources": [asked_of(each, ages.get(each.source)) for each in looked.asked],
            "endpoints": preferences(looked, known.get("loads", ())),
            "stale": bool(known.get("stale")),
            "near": list(known.get("near", ())),
        }


def asked_of(asked: Asked, age_s: float | None) -> Json:
    """What one source said; age_s: how old what the sidecar keeps of it is."""
    return {
        "source": asked.source,
        "tookMs": None if asked.took_s is None else round(asked.took_s * 1e3, 1),
        "endpoints": [
            {"address": each.endpoint.address, "instance": each.endpoint.instance, "ignored": each.ignored}
            for each in asked.given
        ],
        "problem": asked.failure.reason if asked.failure is not None else "",
        "fix": asked.failure.fix if asked.failure is not None else "",
        "keptForS": None if age_s is None else round(age_s, 1),
    }


def preferences(looked: LookUp, loads: Sequence[Mapping[str, Any]]) -> list[Json]:
    """In the order in which a call prefers them; `why` says what puts each where it is."""
    by_address = {load["address"]: load for load in loads}
    ranked = sorted(
        ((*standing(end, by_address.get(end.address)), end) for end in looked.found.endpoints),
        key=lambda each: (each[0], each[1]),
    )
    best = ranked[0][0] if ranked else 0
    equals = sum(1 for tier, *_ in ranked if tier == best)
    drawn = "; of two drawn at random the one that should answer first is called" if equals > 1 else ""
    told = []
    for number, (tier, _, why, end) in enumerate(ranked):
        load = by_address.get(end.address, {})
        told.append(
            {
                "address": end.address,
                "instance": end.instance,
                "source": end.source,
                "verdict": "preferred" if number == 0 else "candidate" if tier == best else "later",
                "why": why + drawn if tier == best else why,
                "inFlight": load.get("inFlight", 0),
                "rttMs": load.get("rttMs"),
                "ejectedForS": load.get("ejectedForS", 0.0),
            }
        )
    return told


def standing(end: Endpoint, load: Mapping[str, Any] | None) -> tuple[int, float, str]:
    """Where the engines put an endpoint: its tier (lower first), what a call there should cost, and why. See `Load.tier` in the engines."""
    told = load or {}
    away_s = float(told.get("ejectedForS", 0.0))
    in_flight, rtt_ms = int(told.get("inFlight", 0)), float(told.get("rttMs") or _UNMEASURED_MS)
    cost = rtt_ms * (in_flight + 1) / end.weight
    is_proven = bool(told.get("proven"))
    if away_s > 0:
        why = WORDS.get(str(told.get("outlier", "")))
        after = "after connections failed" if is_proven else "as it failed or proved to be somebody else"
        after = after if why is None else f"as {why}"
        return (2 if is_proven else 4), cost, f"left alone for {away_s:g} s {after}"
    if is_proven:
        return 0, cost, f"answered before ({rtt_ms:g} ms, {in_flight} in flight)"
    if end.source == MDNS_SOURCE:
        return (
            3,
            cost,
            "only announced on the network, not called yet: comes after those that have proven themselves",
        )
    return 1, cost, "known to this host, not called yet"
