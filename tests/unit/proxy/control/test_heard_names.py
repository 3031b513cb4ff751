"""What is remembered of other apps' names is bounded, and the own name is never among what makes room."""

from nameresolution.host_registry import Entry
from nameresolution.resolver import AppName, Endpoint, EndpointSet
from proxy.control.heard_names import MAX_NAMES, MAX_SERVICES, HeardNames
from proxy.deciding.callee import Callee

OWN = AppName("Web", "default")
END = Endpoint(host="10.0.0.1", port=1, source="mdns")


def found(app_id: str, *endpoints: Endpoint) -> EndpointSet:
    return EndpointSet(name=AppName(app_id, "default"), endpoints=endpoints)


def absent(names: HeardNames, app_id: str) -> str | None:
    return names.absent(Callee(app_id, "default", app_id))


def test_names_are_bounded_and_the_oldest_makes_room() -> None:
    names = HeardNames(OWN)
    for number in range(MAX_NAMES + 100):
        names.found(found(f"app-{number}", END), 0.0)
        names.found(found(f"app-{number}"), 0.0)
    assert absent(names, "app-0") is None
    assert absent(names, f"app-{MAX_NAMES + 99}") is not None
    assert next(name for name in range(MAX_NAMES + 100) if absent(names, f"app-{name}")) == 101
    assert names.is_known(OWN)


def test_claimed_services_are_bounded() -> None:
    names = HeardNames(OWN)
    services = tuple(f"shop.S{number}" for number in range(MAX_SERVICES + 100))
    names.registered([Entry(app_id="cart", instance="a", peer_port=1, grpc_services=services)], "", 0.0)
    assert len(names.claims()) == MAX_SERVICES


def test_names_that_were_only_asked_for_are_not_heard_of() -> None:
    names = HeardNames(OWN)
    names.found(found("nobody"), 0.0)
    assert not names.is_known(AppName("nobody", "default"))
    assert names.nearest("nobodi", "default") == ()


def test_lower_case_finds_a_name_until_it_makes_room_for_others() -> None:
    names = HeardNames(OWN)
    names.found(found("Cart", END), 0.0)
    assert [callee.text for callee in names.spellings(Callee("cart", "default", "cart"))] == ["Cart"]
    before = names.generation
    for number in range(MAX_NAMES):
        names.found(found(f"app-{number}", END), 0.0)
    assert names.spellings(Callee("cart", "default", "cart")) == ()
    assert names.generation == before + 1
    assert [callee.text for callee in names.spellings(Callee("web", "default", "web.default"))] == [
        "Web.default"
    ]


def test_registered_app_that_takes_no_calls_is_known_and_its_reason_left_to_what_was_tried() -> None:
    names = HeardNames(OWN)
    names.registered([Entry(app_id="cart", instance="a", peer_port=1, serving=False)], "", 0.0)
    assert absent(names, "cart") == ""
