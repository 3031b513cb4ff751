"""mDNS packets to values and back, byte for byte as a daprd sends and reads them; pure.

Import it late: the codec comes from python-zeroconf, whose import costs more than the rest of this package.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from zeroconf import (  # type: ignore[attr-defined] # in the package namespace, missing from its __all__
    DNSAddress,
    DNSIncoming,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSRecord,
    DNSService,
    DNSText,
)

from nameresolution.errors import AnnouncementError
from nameresolution.mdns.records import (
    ADDRESS_TTL_S,
    ENUMERATION_NAME,
    RECORD_TTL_S,
    Advert,
    Goodbye,
    Query,
    Response,
    Sighting,
    is_usable,
    parse_hints,
    service_name,
)
from nameresolution.resolver import INSTANCE_ATTRIBUTE

_A, _PTR, _TXT, _AAAA, _SRV = 1, 12, 16, 28, 33
_IN = 1
_IN_FLUSH = 0x8001
_QUERY_FLAGS = 0x0000
_ANSWER_FLAGS = 0x8400
_ANNOUNCEMENT_FLAGS = 0x8000
_MAX_PACKET_BYTES = 1400  # one packet holds all or a daprd finds nothing; below the MTU of tunnels


def question(app_id: str, packet_id: int) -> bytes:
    """Who is this app-id? Asked for a multicast answer: a unicast one may reach another process on the port."""
    out = DNSOutgoing(_QUERY_FLAGS, multicast=False, id_=packet_id)
    out.add_question(DNSQuestion(service_name(app_id), _PTR, _IN))
    return out.packets()[0]


def announcement(advert: Advert) -> bytes:
    """Here I am, unasked.

    Raises: AnnouncementError if it is more than one packet.
    """
    out = DNSOutgoing(_ANNOUNCEMENT_FLAGS, multicast=True)
    service, text, address = _details(advert, RECORD_TTL_S, ADDRESS_TTL_S)
    for record in (service, text, _pointer(advert, RECORD_TTL_S), _enumeration(advert), address):
        out.add_answer_at_time(record, 0)
    return _single(out)


def goodbye(advert: Advert) -> bytes:
    """I leave. Only records that are ours alone: the host's address and the enumeration belong to others too."""
    out = DNSOutgoing(_ANNOUNCEMENT_FLAGS, multicast=True)
    service, text, _ = _details(advert, 0, 0)
    for record in (service, text, _pointer(advert, 0)):
        out.add_answer_at_time(record, 0)
    return _single(out)


def answer(advert: Advert, query: Query) -> bytes | None:
    """What to say to a query, None if it asks for nothing of ours or knows it already."""
    out = DNSOutgoing(_ANSWER_FLAGS, multicast=False, id_=query.id)
    service, text, address = _details(advert, RECORD_TTL_S, ADDRESS_TTL_S)
    if advert.instance_name in query.names:
        out.add_answer_at_time(service, 0)
        out.add_answer_at_time(text, 0)
        out.add_answer_at_time(_pointer(advert, RECORD_TTL_S), 0)
        out.add_answer_at_time(address, 0)
    elif advert.service_name in query.names and advert.instance_name not in query.known:
        out.add_answer_at_time(_pointer(advert, RECORD_TTL_S), 0)
        for record in (service, text, address):
            out.add_additional_answer(record)
    if ENUMERATION_NAME in query.names and advert.service_name not in query.known:
        out.add_answer_at_time(_enumeration(advert), 0)
    return _single(out) if out.answers else None


def read(data: bytes, *, from_this_host: bool) -> Query | Response | None:
    """What a packet says; None if it is malformed or a probe, to which no one here objects."""
    packet = DNSIncoming(data)
    if not packet.valid:
        return None
    if packet.is_response():
        return _read_response(packet.answers(), from_this_host=from_this_host)
    if packet.is_probe():
        return None
    known = (record for record in packet.answers() if isinstance(record, DNSPointer))
    return Query(
        id=packet.id,
        names=tuple(asked.name for asked in packet.questions),
        known=frozenset(record.alias for record in known if record.ttl > RECORD_TTL_S / 2),
        unicast=packet.has_qu_question(),
    )


def _pointer(advert: Advert, ttl_s: int) -> DNSPointer:
    return DNSPointer(advert.service_name, _PTR, _IN, ttl_s, advert.instance_name)


def _enumeration(advert: Advert) -> DNSPointer:
    return DNSPointer(ENUMERATION_NAME, _PTR, _IN, RECORD_TTL_S, advert.service_name)


def _details(advert: Advert, ttl_s: int, address_ttl_s: int) -> tuple[DNSService, DNSText, DNSAddress]:
    """SRV, TXT and the one address; the encoder writes the flush bit in announcements only."""
    name = advert.instance_name
    packed = ipaddress.ip_address(advert.instance.host).packed
    text = b"".join(bytes((len(string),)) + string for string in advert.text)
    return (
        DNSService(name, _SRV, _IN_FLUSH, ttl_s, 0, 0, advert.instance.port, advert.host_name),
        DNSText(name, _TXT, _IN_FLUSH, ttl_s, text),
        DNSAddress(advert.host_name, _A if len(packed) == 4 else _AAAA, _IN_FLUSH, address_ttl_s, packed),
    )


def _single(out: DNSOutgoing) -> bytes:
    packets = out.packets()
    if len(packets) != 1 or len(packets[0]) > _MAX_PACKET_BYTES:
        raise AnnouncementError("attributes", f"the records must fit one packet of {_MAX_PACKET_BYTES} bytes")
    return packets[0]


def _read_response(records: Iterable[DNSRecord], *, from_this_host: bool) -> Response:
    records = tuple(records)
    texts = {record.name: record for record in records if isinstance(record, DNSText)}
    addresses = _usable_addresses(records, from_this_host=from_this_host)
    sightings: list[Sighting] = []
    leaving: dict[str, Goodbye] = {}
    for record in records:
        if isinstance(record, DNSService) and record.ttl > 0:
            sighting = _sighting(record, texts.get(record.name), addresses.get(record.server))
            if sighting is not None:
                sightings.append(sighting)
        elif record.ttl == 0:
            name = _leaving_name(record)
            if name:
                leaving[name] = Goodbye(instance_name=name, instance=_instance_id(texts.get(name)))
    return Response(sightings=tuple(sightings), goodbyes=tuple(leaving.values()))


def _leaving_name(record: DNSRecord) -> str:
    """The instance that a record of TTL 0 takes away; addresses and the enumeration are shared and take none."""
    if isinstance(record, DNSService):
        return record.name
    if isinstance(record, DNSPointer) and record.name != ENUMERATION_NAME:
        return record.alias
    return ""


def _sighting(service: DNSService, text: DNSText | None, address: tuple[str, int] | None) -> Sighting | None:
    """SRV, TXT and address of one packet as an instance, by the rules by which a daprd reads them."""
    strings = _split(text.text) if text is not None and text.ttl > 0 else ()
    if not strings or address is None or service.port == 0:
        return None
    app_id = strings[0].decode("utf-8", "replace")
    if not service.name.endswith(f".{service_name(app_id)}"):
        return None
    host, address_ttl_s = address
    return Sighting(
        app_id=app_id,
        instance_name=service.name,
        host=host,
        port=service.port,
        life_s=min(service.ttl, address_ttl_s),
        attributes=parse_hints(strings),
    )


def _usable_addresses(records: Iterable[DNSRecord], *, from_this_host: bool) -> Mapping[str, tuple[str, int]]:
    """Host name to address and TTL; an A record goes before an AAAA, of equals the first."""
    found: dict[str, tuple[str, int]] = {}
    addresses = (record for record in records if isinstance(record, DNSAddress) and record.ttl > 0)
    for record in sorted(addresses, key=lambda record: record.type):
        host = str(ipaddress.ip_address(record.address))
        if is_usable(host, from_this_host=from_this_host):
            found.setdefault(record.name, (host, int(record.ttl)))
    return found


def _instance_id(text: DNSText | None) -> str:
    return dict(parse_hints(_split(text.text))).get(INSTANCE_ATTRIBUTE, "") if text is not None else ""


def _split(text: bytes) -> tuple[bytes, ...]:
    """The strings of a TXT record; what a wrong length byte leaves over is dropped."""
    strings: list[bytes] = []
    position = 0
    while position < len(text):
        end = position + 1 + text[position]
        if end > len(text):
            break
        strings.append(text[position + 1 : end])
        position = end
    return tuple(strings)
