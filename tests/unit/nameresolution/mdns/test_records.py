from __future__ import annotations

import pytest
from msgspec.structs import replace

from nameresolution.errors import AnnouncementError
from nameresolution.mdns.records import Sighting, is_usable, make_advert, parse_hints
from nameresolution.resolver import Instance

CART = Instance(app_id="cart", namespace="default", host="10.0.0.5", port=50002, instance="i1")


@pytest.mark.parametrize(
    ("hostname", "instance_name", "host_name"),
    [
        ("box", "box:7.cart.local.", "box.local."),
        ("box.lan.example", "box:7.lan.example.cart.local.", "box.lan.example.local."),
        ("box.local", "box:7.local.cart.local.", "box.local.local."),
        ("", "localhost:7.cart.local.", "localhost.local."),
        ("x" * 80, f"{'x' * 61}:7.cart.local.", f"{'x' * 63}.local."),
    ],
)
def test_advert_names_come_from_host_name_and_pid(hostname: str, instance_name: str, host_name: str) -> None:
    advert = make_advert(CART, hostname, 7)
    assert (advert.service_name, advert.instance_name, advert.host_name) == (
        "cart.local.",
        instance_name,
        host_name,
    )


def test_advert_text_begins_with_the_app_id_then_hints_without_empty_ones() -> None:
    advert = make_advert(replace(CART, attributes=(("z", "eu"),)), "box", 7)
    assert advert.text == (b"cart", b"ns=default", b"i=i1", b"w=1", b"z=eu")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"app_id": ""}, "app-id"),
        ({"app_id": "a.b"}, "app-id"),
        ({"app_id": "x" * 64}, "app-id"),
        ({"host": "box.example"}, "address"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"attributes": (("k", "x" * 254),)}, "attributes"),
    ],
)
def test_advert_of_what_has_no_place_in_a_record_is_refused(change: dict[str, object], field: str) -> None:
    with pytest.raises(AnnouncementError) as refused:
        make_advert(replace(CART, **change), "box", 7)  # each change fits its field
    assert refused.value.field == field


def test_parse_hints_keeps_the_first_of_a_key_and_drops_what_is_no_pair() -> None:
    assert parse_hints((b"cart", b"i=1", b"i=2", b"noise", b"=x", b"k=a=b")) == (("i", "1"), ("k", "a=b"))


@pytest.mark.parametrize(
    ("weight", "expected"), [("5", 5), ("0", 1), ("9999", 1000), ("-1", 1), ("", 1), ("x", 1), ("1" * 40, 1)]
)
def test_sighting_weight_outside_its_range_is_brought_into_it(weight: str, expected: int) -> None:
    sighting = Sighting(
        app_id="cart",
        instance_name="box:1.cart.local.",
        host="10.0.0.1",
        port=1,
        life_s=120,
        attributes=(("w", weight),),
    )
    assert sighting.endpoint().weight == expected


def test_is_usable_refuses_addresses_that_lead_nowhere_from_anywhere() -> None:
    for address in ("0.0.0.0", "224.0.0.1", "::", "nonsense"):
        assert not is_usable(address, from_this_host=True)
