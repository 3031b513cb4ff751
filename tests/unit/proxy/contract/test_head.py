"""Who calls, as gates tell callers apart."""

import pytest

from proxy.contract.head import FROM_DAPRD, Header
from tests.unit.proxy.heads import head

ID = "spiffe://public/ns/default/web"
NAMED: Header = (b"postern-peer", ID.encode())
SAID: Header = (b"x-forwarded-for", b"192.0.2.1, 192.0.2.2")


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ((SAID, NAMED), ID),
        ((SAID,), "192.0.2.2"),
        ((SAID, (b"x-forwarded-for", b"2001:db8::1")), "2001:db8::1"),
        (((b"x-forwarded-for", b"9" * 1_000),), ""),
        ((), ""),
    ],
)
def test_a_daprd_is_its_id_or_the_address_that_it_says(headers: tuple[Header, ...], who: str) -> None:
    assert head(listener=FROM_DAPRD, headers=headers).who == who


def test_who_calls_elsewhere_is_not_what_a_header_says() -> None:
    lying = (NAMED, SAID)
    assert head(headers=lying, peer_address="127.0.0.1").who == "127.0.0.1"
    assert head(
        headers=lying, peer_address="192.0.2.9", peer="spiffe://public/ns/default/other"
    ).who.endswith("/other")
    assert not head(headers=lying).who
