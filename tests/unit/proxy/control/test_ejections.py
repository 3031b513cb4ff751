"""What the control plane tells of endpoints that are left out: the log, metrics and status."""

from collections.abc import Sequence
from typing import Any

from proxy.contract.balancing import EndpointTurn
from proxy.control.ejections import Ejections
from telemetry.metrics import Meters
from tests.unit.proxy.control.test_breakers import Log


class World:
    """Ejections over loads that a test sets."""

    def __init__(self) -> None:
        self.loads: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.log, self.meters = Log(), Meters("web")
        self.ejections = Ejections(self.loads_of, self.meters, self.log)  # type: ignore[arg-type]

    def loads_of(self, key: str) -> Sequence[dict[str, Any]]:
        self.asked.append(key)
        return self.loads.get(key, [])

    def turned(self, *turn: Any) -> None:
        self.ejections.turned(EndpointTurn(*turn))


def load(address: str, outlier: str = "", for_s: float = 0.0) -> dict[str, Any]:
    return {"address": address, "outlier": outlier, "ejectedForS": for_s}


def test_each_is_logged_and_counted() -> None:
    world = World()
    world.turned("peer:cart.shop", "10.0.0.1:1", "failures", 30.04, 1)
    world.turned("peer:cart.shop", "10.0.0.1:1", "probe", 60.0, 2)
    world.turned("peer:cart.shop", "10.0.0.1:1", "", 0.0, 2)
    world.turned("http-endpoint:pay", "10.0.0.9:1", "success-rate", 30.0, 1)
    assert [(level, event) for level, event, _ in world.log.lines] == [
        ("warning", "endpoint ejected"),
        ("warning", "endpoint ejected"),
        ("info", "endpoint takes calls again"),
        ("warning", "endpoint ejected"),
    ]
    assert world.log.lines[0][2] == {
        "callee": "cart.shop",
        "endpoint": "10.0.0.1:1",
        "reason": "its answers failed time after time",
        "for_s": 30.0,
        "times": 1,
    }
    counted = {labels: slot.value for labels, slot in world.meters.outlier_ejections.slots.items()}
    assert counted == {
        ("cart.shop", "failures"): 1,
        ("cart.shop", "probe"): 1,
        ("pay", "success-rate"): 1,
    }


def test_who_is_out_is_shown_and_counted_until_it_is_back() -> None:
    world = World()
    key = "peer:cart.shop"
    assert (world.ejections.status(), world.asked) == ([], [])
    world.loads[key] = [load("a", "failures", 12.3), load("b", "probe"), load("c")]
    world.turned(key, "a", "failures", 30.0, 1)
    world.ejections.scrape()
    out = world.meters.outliers_out.slots
    assert {labels: slot.value for labels, slot in out.items()} == {("cart.shop",): 2}
    assert world.ejections.status() == [
        {"callee": "cart.shop", "endpoint": "a", "reason": "failures", "ejectedForS": 12.3},
        {"callee": "cart.shop", "endpoint": "b", "reason": "probe", "ejectedForS": 0.0},
    ]
    world.loads[key] = [load("a"), load("b"), load("c")]
    world.ejections.scrape()
    assert {labels: slot.value for labels, slot in out.items()} == {("cart.shop",): 0}
    world.asked.clear()
    world.ejections.scrape()
    assert world.asked == [], "nobody is out any more"
