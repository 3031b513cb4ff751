"""The clusters pushed to the engine, with the load and health of each address, and who waits for a cluster to appear."""

import random
from collections.abc import Callable, Collection, Sequence

from proxy.contract.balancing import EndpointTurn
from proxy.contract.engine import Cluster, Upstream
from proxy.contract.head import Headers
from proxy.engine.portable.balance import Load
from proxy.engine.portable.choosing import Rotation, choose, hash_of, order_of
from proxy.engine.portable.outliers import OutlierWatch

_MAX_AWAY = (
    1_024  # addresses that are gone and remembered as somebody else's: announcing them again gains nothing
)
_MAX_PROVING = 2


class ClusterState:
    """One cluster as it stands. Mutable state: the loads, which outlive a push for the addresses that stay; `_away`, those of addresses
    that are gone and were seen to be somebody else's; whose turn it is; who is left out for its answers.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._loads: dict[str, Load] = {}
        self._away: dict[str, Load] = {}
        self._upstreams: dict[str, Upstream] = {}
        self._rotation = Rotation()
        self._watch = OutlierWatch()
        self.update(cluster)

    def update(self, cluster: Cluster) -> frozenset[str]:
        """Take a new set of addresses; returns those that are gone."""
        old = self._loads
        self.cluster = cluster
        self._upstreams = {upstream.address: upstream for upstream in cluster.upstreams}
        is_proven = cluster.wire != "postern"  # apps and our own sockets were not announced by anybody
        self._loads = {
            address: old.get(address)
            or self._away.pop(address, None)
            or Load(address=address, proven=is_proven, mark=hash_of(address.encode()))
            for address in self._upstreams
        }
        for address, load in self._loads.items():
            load.weight, load.rank = self._upstreams[address].weight, self._upstreams[address].rank
        self._away |= {
            address: load for address, load in old.items() if address not in self._loads and load.mismatches
        }
        for address in list(self._away)[: max(0, len(self._away) - _MAX_AWAY)]:
            del self._away[address]
        self._watch.update(cluster.key, cluster.outliers, self.loads())
        return frozenset(old) - frozenset(self._loads)

    def pick(
        self, tried: Collection[str], now: float, rng: random.Random, headers: Headers = ()
    ) -> Load | None:
        """The endpoint for an attempt at a request with these headers."""
        balancing = self.cluster.balancing
        header = None
        if balancing.header:
            header = next((value for name, value in headers if name == balancing.header), None)
        order = order_of(balancing, header, self._rotation)
        chosen = choose(self.loads(), tried, now, rng.random, order)
        if chosen is not None:
            self._watch.begin(chosen, now)
        return chosen

    def heard(
        self, load: Load, has_failed: bool | None, now: float, rng: random.Random
    ) -> Sequence[EndpointTurn]:
        """An attempt at an endpoint has ended, see `outliers.has_failed`. Returns who is left out or takes calls again."""
        return self._watch.heard(self.loads(), load, has_failed, now, rng.random)

    def to_prove(self, but: str, now: float) -> Load | None:
        """An endpoint to connect to beside a call, so that it may take calls: not `but`, which the call itself goes to."""
        unproven = [load for load in self._loads.values() if not load.proven]
        if not unproven or sum(load.proving for load in unproven) >= _MAX_PROVING:
            return None
        due = [
            load
            for load in unproven
            if load.ejected_until <= now and not load.proving and load.address != but
        ]
        return min(due, key=lambda load: (load.mismatches, load.rank), default=None)

    def restore(self) -> None:
        """Hold nothing against any endpoint."""
        self._away.clear()
        for load in self._loads.values():
            load.restore()

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

    def restore(self) -> None:
        """The identity was renewed: who could not be proven under the old one may be under the new one."""
        for state in self._clusters.values():
            state.restore()

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
