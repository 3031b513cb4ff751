from __future__ import annotations

from pathlib import Path

import pytest

from nameresolution.errors import StaticFileError
from nameresolution.resolver import AppName
from nameresolution.static import parse_table

PATH = Path("endpoints.yaml")


def parse(text: str) -> dict[str, list[tuple[str, int]]]:
    table = parse_table(text, "default", PATH)
    return {
        str(name): [(found.address, found.weight) for found in found_all] for name, found_all in table.items()
    }


def test_parse_yaml_with_lists_single_addresses_weights_and_namespaces() -> None:
    text = """
cart: [10.0.0.1:50002, "[fd00::1]:50002"]
cart.shop: 10.0.0.3:1
pay:
  - address: pay.example:443
    weight: 3
  - 10.0.0.4:2
"""
    assert parse(text) == {
        "cart.default": [("10.0.0.1:50002", 1), ("[fd00::1]:50002", 1)],
        "cart.shop": [("10.0.0.3:1", 1)],
        "pay.default": [("pay.example:443", 3), ("10.0.0.4:2", 1)],
    }


def test_parse_json_and_the_empty_file() -> None:
    assert parse('{"cart": ["10.0.0.1:1"]}') == {"cart.default": [("10.0.0.1:1", 1)]}
    assert parse("") == {}


@pytest.mark.parametrize(
    "address",
    [
        "host",
        "host:",
        ":1",
        "host:0",
        "host:65536",
        "host:x",
        "host:-1",
        "fd00::1:1",
        "http://a:1",
        "a b:1",
        "1",
    ],
)
def test_parse_refuses_what_is_no_address(address: str) -> None:
    with pytest.raises(StaticFileError, match="expected host:port"):
        parse_table(f'cart: ["{address}"]', "default", PATH)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", "expected a map"),
        ("cart: []", "at least one address"),
        ("a.b.c: h:1", "expected an app-id"),
        ("1: h:1", "expected an app-id"),
        ("cart: h:1\ncart.default: h:2", "is given twice"),
        ("cart: [{address: 'h:1', weight: 0}]", "expected a weight"),
        ("cart: [{address: 'h:1', weight: true}]", "expected a weight"),
        ("cart: [{address: 'h:1', wait: 1}]", "unknown field wait"),
        ("cart: {weight: 1}", "expected host:port, got None"),
        ("cart: [", "endpoints.yaml: "),
        ("[" * 50_000, "nested too deeply"),
    ],
)
def test_parse_names_the_fault(text: str, expected: str) -> None:
    with pytest.raises(StaticFileError, match=expected):
        parse_table(text, "default", PATH)


def test_parse_reports_every_fault_at_once() -> None:
    with pytest.raises(StaticFileError) as refused:
        parse_table("cart: nowhere\npay: [h:1, h:0]", "default", PATH)
    assert len(refused.value.faults) == 2


def test_parse_keeps_names_apart_by_namespace() -> None:
    table = parse_table("cart: h:1", "shop", PATH)
    assert AppName("cart", "shop") in table
    assert AppName("cart", "default") not in table
