"""The clusters pushed to the engine, with the load and health of each address, and who waits for a cluster to appear."""

import random
from collections.abc import Callable, Collection

from proxy.balance import Load, choose
from proxy.engine.base import Cluster, Upstream


class ClusterState:
    """One cluster as it stands. Mutable state: the loads, which outlive a push for the addresses that stay."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._loads: dict[str, Load] = {}
        self._upstreams: dict[str, Upstream] = {}
        self.update(cluster)

    def update(self, cluster: Cluster) -> frozenset[str]:
        """Take a new set of addresses; returns those that are gone."""
        old = self._loads
        self.cluster = cluster
        self._upstreams = {upstream.address: upstream for upstream in cluster.upstreams}
        self._loads = {
            address: old.get(address) or Load(address=address, weight=upstream.weight)
            for address, upstream in self._upstreams.items()
        }
        for address, load in self._loads.items():
            load.weight = self._upstreams[address].weight
        return frozenset(old) - frozenset(self._loads)

    def pick(self, tried: Collection[str], now: float, rng: random.Random) -> Load | None:
        """The endpoint for an attempt."""
        return choose(tuple(self._loads.values()), tried, now, rng)

    def untried(self, tried: Collection[str]) -> bool:
        """Whether another address is left to try."""
        return any(address not in tried for address in self._loads)

    def load(self, address: str) -> Load | None:
        """What is known of an address."""
        return self._loads.get(address)

    def loads(self) -> tuple[Load, ...]:
        """All of them, for status."""
        return tuple(self._loads.values())


class Clusters:
    """Mutable state: clusters by key, and callbacks of calls held until a cluster is set."""

    def __init__(self) -> None:
        self._clusters: dict[str, ClusterState] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    @property
    def awaited(self) -> int:
        """For how many clusters calls are held."""
        return len(self._waiting)

    def get(self, key: str) -> ClusterState | None:
        """The cluster, if it was pushed."""
        return self._clusters.get(key)

    def put(self, cluster: Cluster) -> frozenset[str]:
        """Add or replace; wakes who waits; returns the addresses that are gone."""
        state = self._clusters.get(cluster.key)
        gone: frozenset[str] = frozenset()
        if state is None:
            self._clusters[cluster.key] = ClusterState(cluster)
        else:
            gone = state.update(cluster)
        self.wake(cluster.key)
        return gone

    def wake(self, key: str) -> None:
        """Have who waits for `key` ask again."""
        for wake in tuple(self._waiting.pop(key, ())):  # each takes itself off the list
            wake()

    def drop(self, key: str) -> ClusterState | None:
        """Forget a cluster."""
        return self._clusters.pop(key, None)

    def wait(self, key: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when the cluster is next set; returns what cancels that."""
        waiting = self._waiting.setdefault(key, [])
        waiting.append(wake)

        def cancel() -> None:
            if wake in waiting:
                waiting.remove(wake)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

        return cancel
