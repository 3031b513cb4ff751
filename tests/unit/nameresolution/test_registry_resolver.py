from __future__ import annotations

import pytest
from msgspec.structs import replace

from nameresolution.host_registry import Entry
from nameresolution.registry_resolver import endpoints_of
from nameresolution.resolver import AppName, SourceFailure

ENTRY = Entry(app_id="cart", instance="a1", peer_port=50002, mesh="abc", host="10.0.0.5")
CART = AppName("cart", "default")


def test_endpoints_of_a_name_are_reached_over_loopback_and_carry_mesh_and_namespace() -> None:
    found = endpoints_of(CART, (ENTRY, replace(ENTRY, instance="a2", peer_port=50003)))
    assert not isinstance(found, SourceFailure)
    assert [(endpoint.address, endpoint.instance) for endpoint in found] == [
        ("127.0.0.1:50002", "a1"),
        ("127.0.0.1:50003", "a2"),
    ]
    assert found[0].attributes == (("ns", "default"), ("m", "abc"))


def test_endpoints_of_other_names_namespaces_and_withdrawn_entries_are_none() -> None:
    entries = (
        replace(ENTRY, app_id="pay"),
        replace(ENTRY, namespace="shop"),
        replace(ENTRY, app_id="Cart"),
    )
    assert endpoints_of(CART, entries) == SourceFailure(reason="no entry", missing=True)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("starting", "its app does not listen yet on port 8080"),
        ("down", "its app no longer listens on port 8080"),
        ("unhealthy", "its app fails its health probes"),
        ("listening", "it is starting or leaving"),
    ],
)
def test_entry_that_takes_no_calls_says_why(state: str, reason: str) -> None:
    entry = replace(ENTRY, serving=False, app_state=state, app_port=8080, pid=7)
    found = endpoints_of(CART, (entry, entry))
    assert found == SourceFailure(reason=f"registered (pid 7), but {reason}", missing=True)
    assert isinstance(endpoints_of(CART, (entry, ENTRY)), tuple)
