"""Addresses as endpoints and listeners carry them."""

import pytest

from proxy.contract.addresses import join_address, split_address


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [("127.0.0.1", 80, "127.0.0.1:80"), ("::1", 80, "[::1]:80"), ("cart", 0, "cart:0"), ("", 80, ":80")],
)
def test_address_joins_and_splits_with_brackets_for_ipv6_only(host: str, port: int, address: str) -> None:
    assert join_address(host, port) == address
    assert split_address(address) == (host, port)


@pytest.mark.parametrize("address", ["", "cart", "cart:", "cart:http", "cart:-1", "cart:٣", "[::1]"])
def test_address_without_a_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)
