"""The values and names of mDNS as sidecars speak it: what is announced, asked and heard; pure, imports no codec.

The service type is the bare app-id (`cart.local.`), the instance `<hostname>:<pid>.<app-id>.local.`; names are compared
byte for byte. Postern's hints follow the app-id as further strings of the TXT record.
"""

from __future__ import annotations

import ipaddress

from msgspec import Struct

from nameresolution.errors import AnnouncementError
from nameresolution.resolver import (
    INSTANCE_ATTRIBUTE,
    MESH_ATTRIBUTE,
    NAMESPACE_ATTRIBUTE,
    WEIGHT_ATTRIBUTE,
    Endpoint,
    Instance,
)

MDNS_SOURCE = "mdns"
ENUMERATION_NAME = "_services._dns-sd._udp.local."
RECORD_TTL_S = 3200
ADDRESS_TTL_S = 120
_MAX_LABEL_BYTES = 63  # RFC 1035 section 2.3.4
_MAX_STRING_BYTES = 255  # RFC 1035 section 3.3.14: one length byte
_MAX_WEIGHT = 1000


class Advert(Struct, frozen=True, kw_only=True):
    """One instance in DNS words. `text` are the strings of its TXT record, the app-id first."""

    instance: Instance
    service_name: str
    instance_name: str
    host_name: str
    text: tuple[bytes, ...]


class Query(Struct, frozen=True, kw_only=True):
    """A question packet: the names asked for, and the instance names that the asker already knows."""

    id: int
    names: tuple[str, ...]
    known: frozenset[str] = frozenset()
    unicast: bool = False


class Sighting(Struct, frozen=True, kw_only=True):
    """One instance in an answer or announcement. `life_s` is the shortest TTL among its records."""

    app_id: str
    instance_name: str
    host: str
    port: int
    life_s: int
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def instance(self) -> str:
        """The instance id that it claims, "" without one."""
        return dict(self.attributes).get(INSTANCE_ATTRIBUTE, "")

    @property
    def key(self) -> str:
        """What tells instances apart: the address too, as anybody may claim a name or an id."""
        return f"{self.instance or self.instance_name} {self.host} {self.port}"

    def endpoint(self) -> Endpoint:
        """The endpoint that this amounts to."""
        hints = dict(self.attributes)
        return Endpoint(
            host=self.host,
            port=self.port,
            instance=hints.get(INSTANCE_ATTRIBUTE, ""),
            source=MDNS_SOURCE,
            weight=_weight(hints.get(WEIGHT_ATTRIBUTE, "")),
            attributes=self.attributes,
        )


class Goodbye(Struct, frozen=True, kw_only=True):
    """An instance that leaves. `instance` is its id, "" when the packet names none."""

    instance_name: str
    instance: str = ""


class Response(Struct, frozen=True, kw_only=True):
    """All that an answer packet says of instances."""

    sightings: tuple[Sighting, ...] = ()
    goodbyes: tuple[Goodbye, ...] = ()


def service_name(app_id: str) -> str:
    """The name to ask for."""
    return f"{app_id}.local."


def make_advert(instance: Instance, hostname: str, pid: int) -> Advert:
    """Put an instance into DNS words.

    Raises: AnnouncementError if a name, string or address has no place in a record.
    """
    app_id = instance.app_id
    if not app_id or "." in app_id or len(app_id.encode()) > _MAX_LABEL_BYTES:
        raise AnnouncementError(
            "app-id", f"expected 1 to {_MAX_LABEL_BYTES} bytes without dots, got {app_id!r}"
        )
    try:
        ipaddress.ip_address(instance.host)
    except ValueError:
        raise AnnouncementError("address", f"expected an IP address, got {instance.host!r}") from None
    if not 0 < instance.port < 65536:
        raise AnnouncementError("port", f"expected 1 to 65535, got {instance.port}")
    first, _, rest = (hostname.strip(".") or "localhost").partition(".")
    suffix = f":{pid}"
    label = _shortened(first, _MAX_LABEL_BYTES - len(suffix)) + suffix
    tail = "".join(f"{_shortened(part, _MAX_LABEL_BYTES)}." for part in rest.split(".") if part)
    return Advert(
        instance=instance,
        service_name=service_name(app_id),
        instance_name=f"{label}.{tail}{service_name(app_id)}",
        host_name=f"{_shortened(first, _MAX_LABEL_BYTES)}.{tail}local.",
        text=_text_strings(instance),
    )


def _text_strings(instance: Instance) -> tuple[bytes, ...]:
    hints = [
        (NAMESPACE_ATTRIBUTE, instance.namespace),
        (INSTANCE_ATTRIBUTE, instance.instance),
        (MESH_ATTRIBUTE, instance.mesh),
        (WEIGHT_ATTRIBUTE, str(instance.weight)),
        *instance.attributes,
    ]
    # A daprd stops reading at the first string that is not the app-id, so that one stands first.
    strings = (instance.app_id.encode(), *(f"{key}={value}".encode() for key, value in hints if value))
    for string in strings:
        if len(string) > _MAX_STRING_BYTES:
            raise AnnouncementError(
                "attributes", f"{string[:20]!r}… has {len(string)} bytes, expected at most 255"
            )
    return strings


def parse_hints(strings: tuple[bytes, ...]) -> tuple[tuple[str, str], ...]:
    """The `key=value` strings after the app-id; others are left out, of a repeated key the first counts."""
    hints: dict[str, str] = {}
    for string in strings[1:]:
        key, separator, value = string.decode("utf-8", "replace").partition("=")
        if separator and key:
            hints.setdefault(key, value)
    return tuple(hints.items())


def is_usable(address: str, *, from_this_host: bool) -> bool:
    """Whether an address heard may be dialled: another host's loopback or link-local address never leads to it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if parsed.is_unspecified or parsed.is_multicast:
        return False
    return from_this_host or not (parsed.is_loopback or parsed.is_link_local)


def _weight(text: str) -> int:
    return min(max(int(text), 1), _MAX_WEIGHT) if text.isascii() and text.isdigit() and len(text) < 6 else 1


def _shortened(label: str, limit_bytes: int) -> str:
    return label.encode()[:limit_bytes].decode("utf-8", "ignore")
