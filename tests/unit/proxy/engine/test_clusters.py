"""Clusters as they are pushed, and who waits for them."""

import random
from collections.abc import Callable

from proxy.contract.engine import Cluster, Upstream
from proxy.engine.portable.clusters import Clusters


def cluster(*addresses: str, key: str = "app", weight: int = 1) -> Cluster:
    """A cluster of addresses."""
    upstreams = tuple(Upstream(address=address, weight=weight) for address in addresses)
    return Cluster(key=key, wire="http1", tls=None, upstreams=upstreams)


def test_put_replaced_cluster_keeps_the_load_of_addresses_that_stay() -> None:
    clusters = Clusters()
    clusters.put(cluster("a", "b"))
    state = clusters.get("app")
    assert state is not None
    kept = state.load("b")
    assert kept is not None
    kept.in_flight = 7
    gone = clusters.put(cluster("b", "c"))
    assert gone == {"a"}
    assert state.load("b") is kept
    assert [load.address for load in state.loads()] == ["b", "c"]


def test_put_changed_weight_takes_effect_on_a_known_address() -> None:
    clusters = Clusters()
    clusters.put(cluster("a"))
    clusters.put(cluster("a", weight=5))
    state = clusters.get("app")
    assert state is not None
    assert [load.weight for load in state.loads()] == [5]


def test_put_wakes_all_who_wait_once() -> None:
    clusters = Clusters()
    woken: list[int] = []
    for number in range(3):
        clusters.wait("app", lambda number=number: woken.append(number))  # type: ignore[misc]
    clusters.put(cluster("a"))
    clusters.put(cluster("b"))
    assert woken == [0, 1, 2]
    assert clusters.awaited == 0


def test_wake_who_waits_again_while_woken_is_not_lost() -> None:
    clusters = Clusters()
    woken: list[str] = []

    def wake() -> None:
        woken.append("first")
        clusters.wait("app", lambda: woken.append("second"))

    clusters.wait("app", wake)
    clusters.wake("app")
    assert woken == ["first"]
    clusters.wake("app")
    assert woken == ["first", "second"]


def test_wait_cancelled_is_not_woken_and_leaves_nothing_behind() -> None:
    clusters = Clusters()
    woken: list[int] = []
    for name in ("a", "b"):
        cancel = clusters.wait(name, lambda: woken.append(1))
        cancel()
        cancel()
    clusters.wake("a")
    assert (woken, clusters.awaited) == ([], 0)


def test_wait_cancel_within_a_wake_harms_nobody() -> None:
    clusters = Clusters()
    woken: list[int] = []
    cancels: list[Callable[[], None]] = []

    def wake() -> None:
        woken.append(1)
        cancels[0]()

    cancels += [clusters.wait("app", wake) for _ in range(2)]
    clusters.wake("app")
    assert woken == [1, 1]


def test_drop_forgets_and_returns_the_state() -> None:
    clusters = Clusters()
    clusters.put(cluster("a"))
    dropped = clusters.drop("app")
    assert dropped is not None
    assert clusters.get("app") is None
    assert clusters.drop("app") is None


def test_pick_and_untried_follow_what_was_tried() -> None:
    clusters = Clusters()
    clusters.put(cluster("a", "b"))
    state = clusters.get("app")
    assert state is not None
    picked = state.pick({"a"}, 0.0, random.Random(1))
    assert picked is not None
    assert picked.address == "b"
    assert state.untried({"a"})
    assert not state.untried({"a", "b"})
