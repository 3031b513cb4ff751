"""HPACK decoding for the portable engine: each field is checked once, when it enters the table; equal blocks are read once.

Stands in for hpack's Decoder in h2 (same four members), and for h2's checks of what came in: no name or value that HTTP/2 forbids gets
past here, nor a pseudo-header field that is unknown, late or given twice. What a request, a response or trailers must hold is for the
reader of the head to say. A field that was never to be indexed keeps its mark, so that it leaves us as it came (RFC 7541 §6.2.3).
Source: RFC 7541 §2.3, §3, §5, §6; RFC 9113 §8.2, §8.3.
"""

import re
from collections import deque

from h2.exceptions import ProtocolError
from hpack.exceptions import HPACKDecodingError, InvalidTableSizeError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.struct import NeverIndexedHeaderTuple
from hpack.table import HeaderTable

from proxy.plan import Header

PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol", b":status"})
_STATIC = tuple(HeaderTable.STATIC_TABLE)
_STATIC_LENGTH = len(_STATIC)
_TRANSFER_ENCODING = 1 + _STATIC.index((b"transfer-encoding", b""))  # the one of `_CONNECTION` in there
_ENTRY_OVERHEAD = 32  # RFC 7541 §4.1
_MAX_INTEGER_BYTES = 6  # 32 bits and then some; more is an attack
_MAX_KEPT = 64  # blocks that were read under one state of the table
_MAX_KEPT_BYTES = 1_024
# RFC 9110 §5.1, §5.5 in lower case (RFC 9113 §8.2.1): names, and what is in no value; RFC 9113 §8.2.2: what belongs to a connection.
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z")
_CONNECTION = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})


class FieldDecoder:
    """One direction of one connection. Mutable state: the dynamic table, newest first, and the blocks read since it last changed."""

    def __init__(self) -> None:
        self.max_header_list_size = 65_536
        self.max_allowed_table_size = self._limit = 4_096
        self._entries: deque[Header] = deque()
        self._size = 0
        self._kept: dict[bytes, list[Header]] = {}

    @property
    def header_table_size(self) -> int:
        """The table's limit in bytes."""
        return self._limit

    @header_table_size.setter
    def header_table_size(self, limit: int) -> None:
        self._limit = limit
        self._shrink()

    def decode(self, data: bytes, raw: bool = True) -> list[Header]:
        """A header block's fields. Raises: HPACKError or h2's ProtocolError; the connection is then of no use."""
        kept = self._kept.get(data)
        if kept is None:
            kept, is_lasting = self._read(data)
            _check_order(kept)
            if is_lasting and len(data) <= _MAX_KEPT_BYTES:
                if len(self._kept) >= _MAX_KEPT:
                    self._kept.clear()
                self._kept[data] = kept
        return kept.copy()

    def _read(self, data: bytes) -> tuple[list[Header], bool]:
        """The fields, and whether the block left the table as it was."""
        fields: list[Header] = []
        at = size = 0
        changed = False
        while at < len(data):
            first = data[at]
            if first & 0x80:
                index, at = _integer(data, at, 0x7F)
                field = self._entry(index)
            elif first & 0x60 == 0x20:
                if fields:
                    raise HPACKDecodingError("a change of the table's size after a field")
                at = self._resize(data, at)
                changed = True
                continue
            else:
                field, at = self._literal(data, at, 0x3F if first & 0x40 else 0x0F)
                if first & 0x40:
                    self._insert(field)
                    changed = True
                elif first & 0x10:
                    field = NeverIndexedHeaderTuple(*field)
            fields.append(field)
            size += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
            if size > self.max_header_list_size:
                raise OversizedHeaderListError(
                    f"a header list of more than {self.max_header_list_size} bytes"
                )
        if self._limit > self.max_allowed_table_size:
            raise InvalidTableSizeError("the table was not made as small as it has to be")
        if changed:
            self._kept.clear()
        return fields, not changed

    def _literal(self, data: bytes, at: int, prefix: int) -> tuple[Header, int]:
        index, at = _integer(data, at, prefix)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _text(data, at)
            if _NAME.fullmatch(name) is None:
                raise ProtocolError(f"a field is named {name!r}")
            if name in _CONNECTION:
                raise ProtocolError(f"a field that belongs to a connection: {name!r}")
            if name[:1] == b":" and name not in PSEUDO:
                raise ProtocolError(f"an unknown pseudo-header field: {name!r}")
        value, at = _text(data, at)
        if _BAD_VALUE.search(value) is not None or (name == b"te" and value.lower() != b"trailers"):
            raise ProtocolError(f"the field {name!r} has a value that HTTP/2 forbids")
        return (name, value), at

    def _entry(self, index: int) -> Header:
        if 0 < index <= _STATIC_LENGTH:
            if index == _TRANSFER_ENCODING:
                raise ProtocolError("a field that belongs to a connection: b'transfer-encoding'")
            return _STATIC[index - 1]
        place = index - _STATIC_LENGTH - 1
        if not 0 <= place < len(self._entries):
            raise HPACKDecodingError(f"no entry {index} in the table")
        return self._entries[place]

    def _resize(self, data: bytes, at: int) -> int:
        limit, at = _integer(data, at, 0x1F)
        if limit > self.max_allowed_table_size:
            raise InvalidTableSizeError(
                f"a table of {limit} bytes, {self.max_allowed_table_size} are allowed"
            )
        self.header_table_size = limit
        return at

    def _insert(self, field: Header) -> None:
        self._entries.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + _ENTRY_OVERHEAD


def _check_order(fields: list[Header]) -> None:
    """Pseudo-header fields come first, each once (RFC 9113 §8.3)."""
    seen: set[bytes] = set()
    is_head = True
    for name, _ in fields:
        if name[:1] != b":":
            is_head = False
        elif not is_head or name in seen:
            raise ProtocolError(f"the pseudo-header field {name!r} comes late or twice")
        else:
            seen.add(name)


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    """RFC 7541 §5.2."""
    if at >= len(data):
        raise HPACKDecodingError("a header block ends too soon")
    is_huffman = data[at] & 0x80
    size, at = _integer(data, at, 0x7F)
    end = at + size
    if end > len(data):
        raise HPACKDecodingError("a header block ends too soon")
    text = data[at:end]
    return (decode_huffman(text) if is_huffman else text), end


def _integer(data: bytes, at: int, prefix: int) -> tuple[int, int]:
    """RFC 7541 §5.1: a number and where it ends."""
    number = data[at] & prefix
    at += 1
    if number < prefix:
        return number, at
    for shift in range(0, 7 * _MAX_INTEGER_BYTES, 7):
        if at >= len(data):
            raise HPACKDecodingError("a header block ends too soon")
        byte = data[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HPACKDecodingError("a number of too many bytes")
