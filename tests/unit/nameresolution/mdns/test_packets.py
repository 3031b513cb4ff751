from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nameresolution.errors import AnnouncementError
from nameresolution.mdns.packets import announcement, answer, goodbye, question, read
from nameresolution.mdns.records import (
    ENUMERATION_NAME,
    Advert,
    Goodbye,
    Query,
    Response,
    Sighting,
    make_advert,
)
from nameresolution.resolver import Instance

CART = Instance(
    app_id="Cart-1", namespace="shop", host="10.0.0.5", port=50002, instance="i1", mesh="abc", weight=2
)


@pytest.fixture
def advert() -> Advert:
    return make_advert(CART, "box", 7)


def name(*labels: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in labels)


def record(kind: int, class_: int, ttl: int, data: bytes) -> bytes:
    return struct.pack(">HHIH", kind, class_, ttl, len(data)) + data


def pointer(offset: int) -> bytes:
    return struct.pack(">H", 0xC000 | offset)


TEXT = b"".join(
    bytes([len(string)]) + string for string in (b"Cart-1", b"ns=shop", b"i=i1", b"m=abc", b"w=2")
)


def test_question_is_one_multicast_question_with_its_id_and_no_flags() -> None:
    assert question("Cart-1", 0x1234) == (
        struct.pack(">6H", 0x1234, 0, 1, 0, 0, 0)
        + name("Cart-1", "local")
        + b"\0"
        + struct.pack(">HH", 12, 1)
    )


def test_answer_is_one_packet_of_pointer_service_text_and_one_address(advert: Advert) -> None:
    packet = answer(advert, Query(id=0x0A0B, names=("Cart-1.local.",)))
    service_at, instance_at = 12, 36
    assert packet == b"".join(
        [
            struct.pack(">6H", 0x0A0B, 0x8400, 0, 1, 0, 3),
            name("Cart-1", "local") + b"\0",
            record(12, 1, 3200, name("box:7") + pointer(service_at)),
            pointer(instance_at),
            record(33, 1, 3200, struct.pack(">HHH", 0, 0, 50002) + name("box") + pointer(service_at + 7)),
            pointer(instance_at),
            record(16, 1, 3200, TEXT),
            pointer(service_at + 14 + 10 + 8 + 2 + 10 + 6),
            record(1, 1, 120, bytes([10, 0, 0, 5])),
        ]
    )


def section_counts(packet: bytes) -> tuple[int, ...]:
    return struct.unpack(">6H", packet[:12])


def test_announcement_has_id_zero_five_records_and_the_flush_bit_on_what_is_ours_alone(
    advert: Advert,
) -> None:
    packet = announcement(advert)
    assert section_counts(packet) == (0, 0x8000, 0, 5, 0, 0)
    assert struct.pack(">HHI", 33, 0x8001, 3200) in packet
    assert struct.pack(">HHI", 16, 0x8001, 3200) in packet
    assert packet.count(struct.pack(">HHI", 12, 1, 3200)) == 2
    assert struct.pack(">HHIH", 1, 0x8001, 120, 4) + bytes([10, 0, 0, 5]) in packet


def test_goodbye_takes_back_service_text_and_pointer_but_no_shared_record(advert: Advert) -> None:
    packet = goodbye(advert)
    assert section_counts(packet) == (0, 0x8000, 0, 3, 0, 0)
    assert bytes([10, 0, 0, 5]) not in packet
    assert b"_services" not in packet
    assert read(packet, from_this_host=False) == Response(
        goodbyes=(Goodbye(instance_name="box:7.Cart-1.local.", instance="i1"),)
    )


@pytest.mark.parametrize("packet_of", ["answer", "announcement"])
def test_read_of_what_we_send_gives_the_instance_back(advert: Advert, packet_of: str) -> None:
    packet = (
        announcement(advert)
        if packet_of == "announcement"
        else answer(advert, Query(id=1, names=("Cart-1.local.",)))
    )
    assert packet is not None
    response = read(packet, from_this_host=False)
    assert response == Response(
        sightings=(
            Sighting(
                app_id="Cart-1",
                instance_name="box:7.Cart-1.local.",
                host="10.0.0.5",
                port=50002,
                life_s=120,
                attributes=(("ns", "shop"), ("i", "i1"), ("m", "abc"), ("w", "2")),
            ),
        )
    )
    assert isinstance(response, Response)
    endpoint = response.sightings[0].endpoint()
    assert (endpoint.address, endpoint.instance, endpoint.weight) == ("10.0.0.5:50002", "i1", 2)


@pytest.mark.parametrize("asked", ["cart-1.local.", "Cart-1.local", "box.local.", "other.local."])
def test_answer_to_any_other_name_is_none_names_are_case_sensitive(advert: Advert, asked: str) -> None:
    assert answer(advert, Query(id=1, names=(asked,))) is None


def test_answer_is_suppressed_for_who_knows_our_pointer_but_not_for_who_knows_another(advert: Advert) -> None:
    ours = frozenset({"box:7.Cart-1.local."})
    assert answer(advert, Query(id=1, names=("Cart-1.local.",), known=ours)) is None
    others = frozenset({"box:8.Cart-1.local."})
    assert answer(advert, Query(id=1, names=("Cart-1.local.",), known=others)) is not None


def test_answer_to_the_enumeration_and_to_the_instance_name(advert: Advert) -> None:
    packet = answer(advert, Query(id=1, names=(ENUMERATION_NAME,)))
    assert packet is not None
    assert section_counts(packet) == (1, 0x8400, 0, 1, 0, 0)
    packet = answer(advert, Query(id=1, names=("box:7.Cart-1.local.",)))
    assert packet is not None
    assert section_counts(packet) == (1, 0x8400, 0, 4, 0, 0)


def test_read_question_gives_its_names_id_and_known_answers(advert: Advert) -> None:
    assert read(question("Cart-1", 9), from_this_host=False) == Query(id=9, names=("Cart-1.local.",))
    known = struct.pack(">6H", 9, 0, 1, 1, 0, 0) + name("a", "local") + b"\0" + struct.pack(">HH", 12, 0x8001)
    for ttl, expected in ((3200, frozenset({"x.a.local."})), (100, frozenset[str]())):
        packet = known + pointer(12) + record(12, 1, ttl, name("x") + pointer(12))
        assert read(packet, from_this_host=False) == Query(
            id=9, names=("a.local.",), known=expected, unicast=True
        )


def test_read_probe_is_none() -> None:
    probe = struct.pack(">6H", 0, 0, 1, 0, 1, 0) + name("a", "local") + b"\0" + struct.pack(">HH", 12, 1)
    probe += pointer(12) + record(33, 1, 120, struct.pack(">HHH", 0, 0, 1) + pointer(12))
    assert read(probe, from_this_host=False) is None


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_read_truncated_or_noisy_packets_never_raise(advert: Advert, cut: int) -> None:
    packet = announcement(advert)
    for data in (packet[:cut], packet[:cut] + b"\xff" * 40, b"\xff" * cut):
        heard = read(data, from_this_host=False)
        assert heard is None or isinstance(heard, Query | Response)


def daprd_answer(
    *, text: bytes = b"\x04cart", target: bytes = name("box", "local") + b"\0", addresses: tuple[bytes, ...]
) -> bytes:
    """An answer as a daprd sends it, uncompressed."""
    service = name("cart", "local") + b"\0"
    instance = name("box:9", "cart", "local") + b"\0"
    host = name("box", "local") + b"\0"
    records = [
        service + record(12, 1, 3200, instance),
        instance + record(33, 1, 3200, struct.pack(">HHH", 0, 0, 47301) + target),
        instance + record(16, 1, 3200, text),
        *(host + record(1 if len(packed) == 4 else 28, 1, 120, packed) for packed in addresses),
    ]
    return struct.pack(">6H", 1, 0x8400, 0, 1, 0, len(records) - 1) + b"".join(records)


def sightings(packet: bytes, *, from_this_host: bool = False) -> list[str]:
    response = read(packet, from_this_host=from_this_host)
    assert isinstance(response, Response)
    return [sighting.endpoint().address for sighting in response.sightings]


IPV6 = bytes.fromhex("fd000000000000000000000000000001")


def test_read_answer_of_a_daprd_without_hints() -> None:
    response = read(daprd_answer(addresses=(bytes([10, 0, 0, 9]),)), from_this_host=False)
    assert isinstance(response, Response)
    assert response.sightings == (
        Sighting(app_id="cart", instance_name="box:9.cart.local.", host="10.0.0.9", port=47301, life_s=120),
    )
    assert response.sightings[0].endpoint().instance == ""


def test_read_answer_takes_the_first_a_before_any_aaaa_and_an_aaaa_alone() -> None:
    both = daprd_answer(addresses=(IPV6, bytes([10, 0, 0, 9]), bytes([10, 0, 0, 8])))
    assert sightings(both) == ["10.0.0.9:47301"]
    assert sightings(daprd_answer(addresses=(IPV6,))) == ["[fd00::1]:47301"]


@pytest.mark.parametrize("address", [bytes([127, 0, 0, 1]), bytes([169, 254, 1, 1]), bytes(15) + b"\1"])
def test_read_answer_with_an_address_of_no_use_elsewhere_counts_only_from_this_host(address: bytes) -> None:
    packet = daprd_answer(addresses=(address,))
    assert sightings(packet) == []
    assert len(sightings(packet, from_this_host=True)) == 1


def test_read_answer_takes_the_address_of_that_packet_and_target_only() -> None:
    assert sightings(daprd_answer(addresses=())) == []
    other = name("Box", "local") + b"\0"
    assert sightings(daprd_answer(target=other, addresses=(bytes([10, 0, 0, 9]),))) == []


@pytest.mark.parametrize("text", [b"", b"\x05other", b"\x04ns=x\x04cart", b"\x09cart"])
def test_read_answer_whose_first_string_is_not_the_app_id_is_no_instance(text: bytes) -> None:
    assert sightings(daprd_answer(text=text, addresses=(bytes([10, 0, 0, 9]),))) == []


def test_read_goodbye_of_shared_address_and_enumeration_takes_nobody_away() -> None:
    host = name("box", "local") + b"\0"
    enumeration = name("_services", "_dns-sd", "_udp", "local") + b"\0"
    packet = struct.pack(">6H", 0, 0x8400, 0, 2, 0, 0)
    packet += host + record(1, 0x8001, 0, bytes([10, 0, 0, 9]))
    packet += enumeration + record(12, 1, 0, name("cart", "local") + b"\0")
    assert read(packet, from_this_host=False) == Response()


def test_announcement_too_large_for_one_packet_is_refused() -> None:
    many = tuple((f"k{number}", "x" * 200) for number in range(10))
    with pytest.raises(AnnouncementError, match="one packet"):
        announcement(make_advert(replace(CART, attributes=many), "box", 7))


def test_announcement_of_an_ipv6_address_carries_one_aaaa(advert: Advert) -> None:
    packet = announcement(make_advert(replace(CART, host="fd00::1"), "box", 7))
    assert struct.pack(">HHIH", 28, 0x8001, 120, 16) + IPV6 in packet


@given(data=st.binary(max_size=300))
def test_read_of_any_bytes_never_raises(data: bytes) -> None:
    heard = read(data, from_this_host=False)
    assert heard is None or isinstance(heard, Query | Response)


@given(
    changes=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 200),
)
def test_read_of_a_damaged_answer_never_raises(changes: list[tuple[int, int]], cut: int) -> None:
    packet = bytearray(announcement(make_advert(CART, "box", 7)))
    for position, value in changes:
        packet[position % len(packet)] = value
    heard = read(bytes(packet[: cut or None]), from_this_host=True)
    assert heard is None or isinstance(heard, Query | Response)
