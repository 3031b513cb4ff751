"""HPACK encoding for the portable engine: dictionary look-ups instead of scans, no Huffman, nothing secret or unique in the table.

Stands in for hpack's Encoder in h2 (same three members). What differs per call (traceparent, deadlines) would only push useful entries out
of the dynamic table; what is secret must not be in it at all (RFC 7541 §7.1.3). Huffman saves a few bytes and costs both ends more time
than loopback or a data centre's network does.
Source: RFC 7541 §2.3, §5, §6; Appendix A.
"""

from collections import deque
from collections.abc import Iterable

from hpack.struct import NeverIndexedHeaderTuple
from hpack.table import HeaderTable

from proxy.contract.head import Header

_STATIC = {entry: index for index, entry in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}
_STATIC_LENGTH = len(HeaderTable.STATIC_TABLE)
_ENTRY_OVERHEAD = 32  # RFC 7541 §4.1
_MAX_INDEXED_BYTES = 256  # a longer value would push out too much
_PASSING = frozenset(
    {
        b"traceparent",
        b"tracestate",
        b"grpc-trace-bin",
        b"grpc-timeout",
        b"grpc-message",
        b"grpc-status-details-bin",
        b"content-length",
        b"date",
        b"etag",
        b"last-modified",
        b"x-request-id",
        b"baggage",
    }
)
_SECRET = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"dapr-api-token",
        b"sec-websocket-key",
    }
)


class FieldEncoder:
    """One direction of one connection. Mutable state: the dynamic table, newest last, and where each entry stands in it."""

    def __init__(self) -> None:
        self._limit = 4_096
        self._resized: list[int] = []
        self._entries: deque[tuple[Header, int]] = deque()
        self._size = 0
        self._inserted = 0
        self._by_field: dict[Header, int] = {}
        self._by_name: dict[bytes, int] = {}

    @property
    def header_table_size(self) -> int:
        """The table's limit in bytes."""
        return self._limit

    @header_table_size.setter
    def header_table_size(self, limit: int) -> None:
        # A larger table than ours of old is of no use to us; a smaller one must be obeyed and announced (§4.2).
        limit = min(limit, 4_096)
        if limit != self._limit:
            self._limit = limit
            lowest = min(self._resized, default=limit)
            self._resized = [limit] if limit <= lowest else [lowest, limit]  # at most two (§4.2)
            self._shrink()

    def encode(self, headers: Iterable[Header]) -> bytes:
        """A header block."""
        parts = [_integer(limit, 5, 0x20) for limit in self._resized]
        self._resized.clear()
        for header in headers:
            index = _STATIC.get(header)
            if index is None:
                place = self._by_field.get(header)
                if place is None:
                    parts.append(self._literal(header))
                    continue
                index = _STATIC_LENGTH + self._inserted - place
            parts.append(bytes((0x80 | index,)) if index < 127 else _integer(index, 7, 0x80))
        return b"".join(parts)

    def _literal(self, header: Header) -> bytes:
        name, data = header
        index = _STATIC_NAMES.get(name)
        if index is None:
            place = self._by_name.get(name)
            index = _STATIC_LENGTH + self._inserted - place if place is not None else 0
        if name in _SECRET or type(header) is NeverIndexedHeaderTuple:
            start = _integer(index, 4, 0x10)
        elif name in _PASSING or len(data) > _MAX_INDEXED_BYTES:
            start = _integer(index, 4, 0x00)
        else:
            start = _integer(index, 6, 0x40)
            self._insert(header)
        text = _integer(len(data), 7, 0) + data
        return start + text if index else start + _integer(len(name), 7, 0) + name + text

    def _insert(self, header: Header) -> None:
        header = (bytes(header[0]), bytes(header[1]))
        size = len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD
        self._size += size
        self._entries.append((header, self._inserted))
        self._by_field[header] = self._by_name[header[0]] = self._inserted
        self._inserted += 1
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit:
            header, place = self._entries.popleft()
            self._size -= len(header[0]) + len(header[1]) + _ENTRY_OVERHEAD
            if self._by_field.get(header) == place:
                del self._by_field[header]
            if self._by_name.get(header[0]) == place:
                del self._by_name[header[0]]


def _integer(number: int, prefix: int, flags: int) -> bytes:
    """RFC 7541 §5.1."""
    top = (1 << prefix) - 1
    if number < top:
        return bytes((flags | number,))
    out = bytearray((flags | top,))
    number -= top
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
