"""Endpoints that are left out for what they answer: what is logged, counted and shown of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from proxy.contract.balancing import EndpointTurn
from telemetry.logs import Logger
from telemetry.metrics import Meters

#: Why, for people.
WORDS: Mapping[str, str] = {
    "failures": "its answers failed time after time",
    "success-rate": "its answers failed far more often than those of others",
    "probe": "it failed again when it was tried",
}


class Ejections:
    """Mutable state: `_clusters`, those with endpoints that were left out and may still be. loads: as `Engine.loads` has them."""

    def __init__(
        self, loads: Callable[[str], Sequence[Mapping[str, Any]]], meters: Meters, log: Logger
    ) -> None:
        self._loads = loads
        self._meters = meters
        self._log = log
        self._clusters: set[str] = set()

    def turned(self, turn: EndpointTurn) -> None:
        """An endpoint was left out, or takes calls again."""
        callee = callee_of(turn.cluster)
        if not turn.reason:
            self._log.info("endpoint takes calls again", callee=callee, endpoint=turn.address)
            return
        self._clusters.add(turn.cluster)
        self._meters.outlier_ejections.add(callee, turn.reason)
        self._log.warning(
            "endpoint ejected",
            callee=callee,
            endpoint=turn.address,
            reason=WORDS[turn.reason],
            for_s=round(turn.for_s, 1),
            times=turn.times,
        )

    def scrape(self) -> None:
        """Set the gauge."""
        gauge = self._meters.outliers_out
        counts: dict[tuple[str, ...], float] = dict.fromkeys(gauge.slots, 0)
        for callee, _ in self._out():
            counts[callee,] = counts.get((callee,), 0) + 1
        gauge.replace(counts)

    def status(self) -> list[dict[str, Any]]:
        """Those that are left out now."""
        return [
            {
                "callee": callee,
                "endpoint": load["address"],
                "reason": load["outlier"],
                "ejectedForS": load["ejectedForS"],
            }
            for callee, load in self._out()
        ]

    def _out(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for cluster in sorted(self._clusters):
            out = [load for load in self._loads(cluster) if load["outlier"]]
            if not out:
                self._clusters.discard(cluster)
            for load in out:
                yield callee_of(cluster), load


def callee_of(cluster: str) -> str:
    """What a cluster leads to, for people: `app.namespace`, an HTTPEndpoint's name or an origin."""
    return cluster.removeprefix("peer:").removeprefix("http-endpoint:").removeprefix("url:")
