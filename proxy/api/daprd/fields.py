"""Header fields as daprd's envelope has them: a map of names in Go's canonical case to lists of texts. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.api.dapr.codes import INVALID_ARGUMENT, binary
from proxy.api.dapr.invocation import DROPPED
from proxy.api.daprd.framing import WireError
from proxy.contract.head import Header, Headers
from proxy.wire.head_scan import TOKEN

# RFC 9110 §5.5, as bytes: no control characters but the tab.
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_RESERVED: Final = re.compile(r":(method|scheme|path|authority)")
#: Of the envelope, and of one hop: never of the message that is made of it (`expect` was answered by who read the body).
NOT_PASSED: Final = frozenset({*DROPPED, "destination-app-id", "grpc-trace-bin"})


def canonical(name: str) -> str:
    """A name as Go's net/http writes it: daprd looks some of them up so, with regard to case."""
    return "-".join(part.capitalize() for part in name.split("-"))


def into_map(headers: Headers, found: Any) -> None:  # noqa: ANN401 - protobuf's container has no class to name
    """Add fields to a map of an envelope."""
    for raw, data in headers:
        name = raw.decode("latin-1")
        # A daprd takes what ends in `-bin` for binary, and decodes it for gRPC apps, where that is in lower case.
        is_binary = name.endswith("-bin") and binary(data) is not None
        found[name if is_binary else canonical(name)].values.append(as_text(data))


def as_text(data: bytes) -> str:
    """A value; where it isn't UTF-8, which texts of protobuf must be, its bytes count as Latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def from_map(found: Mapping[str, Any], *, keeps_binary: bool) -> Iterator[Header]:
    """The fields of a message that an envelope's map stands for, names in lower case; none of one hop, of ours, or that Connection lists.

    keeps_binary: fields whose names end in `-bin` are for apps that speak gRPC. Raises WireError for what no field can hold.
    """
    listed = frozenset(_listed(found))
    for key, values in found.items():
        name = _name(key)
        is_binary = name.endswith("-bin")
        if name in NOT_PASSED or name in listed or name.startswith("postern-"):
            continue
        if is_binary and not keeps_binary:
            continue
        for value in values.values:
            data = value.strip().encode()
            if _VALUE.fullmatch(data) is None:
                raise WireError(INVALID_ARGUMENT, f"a control character in the header {name}")
            yield name.encode(), data


def _name(key: str) -> str:
    name = key.lower()
    reserved = _RESERVED.fullmatch(name)
    if reserved is not None or (name.startswith("grpc-") and name not in NOT_PASSED):
        name = f"dapr-{name.lstrip(':')}"
    if not name.isascii() or TOKEN.fullmatch(name.encode()) is None:
        raise WireError(INVALID_ARGUMENT, f"{key!r} is not a valid header name")
    return name


def _listed(found: Mapping[str, Any]) -> Iterator[str]:
    for key, values in found.items():
        if key.lower() == "connection":
            for line in values.values:
                yield from (item.strip().lower() for item in line.split(","))


def first(found: Mapping[str, Any], name: str) -> str:
    """The first value of a field, by its name in lower case; empty without one."""
    return next((v for key, values in found.items() if key.lower() == name for v in values.values), "")
