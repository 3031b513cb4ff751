"""HPACK decoding for the portable engine: each field is checked once, when it enters the table; equal blocks are read once.

Stands in for hpack's Decoder in h2 (same four members), and for h2's checks of what came in: no name or value that HTTP/2 forbids gets
past here, nor a pseudo-header field that is unknown, late or given twice. A block with such a field is read to its end, as the table is
the connection's, and stands as `MALFORMED`: it costs one call, not the connection (RFC 9113 §8.1.1). What a request, a response or
trailers must hold is for the reader of the head to say.
A field that was never to be indexed keeps its mark, so that it leaves us as it came (RFC 7541 §6.2.3).
Source: RFC 7541 §2.3, §3, §5, §6; RFC 9113 §8.2, §8.3.
"""

import re
from collections import deque

from hpack.exceptions import HPACKDecodingError, InvalidTableSizeError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.struct import NeverIndexedHeaderTuple
from hpack.table import HeaderTable

from proxy.contract.head import Header

PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol", b":status"})
_STATIC = tuple(HeaderTable.STATIC_TABLE)
_STATIC_LENGTH = len(_STATIC)
_TRANSFER_ENCODING = 1 + _STATIC.index((b"transfer-encoding", b""))  # the one of `_CONNECTION` in there
_ENTRY_OVERHEAD = 32  # RFC 7541 §4.1
_MAX_INTEGER_BYTES = 6  # 32 bits and then some; more is an attack
_MAX_KEPT = 64  # blocks that were read under one state of the table
_MAX_KEPT_BYTES = 8_192  # of all of them, as they came
# RFC 9110 §5.1, §5.5 in lower case (RFC 9113 §8.2.1): names, and what is in no value; RFC 9113 §8.2.2: what belongs to a connection.
_NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z")
# In place of all the fields of a block that no message may hold; the value says why.
MALFORMED = b":malformed"
OVERSIZED = (MALFORMED, b"the head is larger than allowed")
_SURPLUS = (b"x", b"")  # stands for each field of a head that has too many to be read
_BOMB = 16  # times the limit of a head: beyond that nothing is decoded, and the connection ends
_CONNECTION = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})


class _Unsound(tuple[bytes, bytes]):
    """A field that no message may hold. It may stand in the table all the same."""

    __slots__ = ()


class FieldDecoder:
    """One direction of one connection. Mutable state: the dynamic table, newest first, and the blocks read since it last changed."""

    def __init__(self) -> None:
        self.max_header_list_size = 65_536
        self.max_fields = (
            256  # beyond these one more is kept, for the reader to refuse, and the rest only read
        )
        self.max_allowed_table_size = self._limit = 4_096
        self._entries: deque[Header] = deque()
        self._size = 0
        self._kept: dict[bytes, list[Header]] = {}
        self._kept_bytes = 0

    @property
    def header_table_size(self) -> int:
        """The table's limit in bytes."""
        return self._limit

    @header_table_size.setter
    def header_table_size(self, limit: int) -> None:
        self._limit = limit
        self._shrink()

    def decode(self, data: bytes, raw: bool = True) -> list[Header]:
        """A header block's fields. Raises: HPACKError; the connection is then of no use."""
        kept = self._kept.get(data)
        if kept is None:
            if len(data) > self.max_fields and self._is_surplus(data):
                return [_SURPLUS] * (self.max_fields + 1)
            kept, is_lasting = self._read(data)
            fault = _fault(kept)
            if fault:
                kept = [(MALFORMED, fault.encode())]
            if is_lasting and len(data) <= _MAX_KEPT_BYTES // 8:
                if len(self._kept) >= _MAX_KEPT or self._kept_bytes + len(data) > _MAX_KEPT_BYTES:
                    self._forget()
                self._kept[data] = kept
                self._kept_bytes += len(data)
        return kept.copy()

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0

    def _is_surplus(self, data: bytes) -> bool:
        """Whether a block has more fields than a head may, all valid HPACK, and leaves the table as it is: they need not be read."""
        at = count = size = 0
        known = _STATIC_LENGTH + len(self._entries)
        while at < len(data):
            first = data[at]
            if first & 0x80:
                index, at = _integer(data, at, 0x7F)
                if not 0 < index <= known:
                    return False
            elif first & 0x60:  # it changes the table
                return False
            else:
                index, at = _integer(data, at, 0x0F)
                if index > known:
                    return False
                start = at
                for _ in range(1 if index else 2):
                    length, at = _integer(data, at, 0x7F) if at < len(data) else (1, at)
                    at += length
                if at > len(data):
                    return False
                size += at - start
            count += 1
            self._check_count(count)
        return count > self.max_fields and size <= self.max_header_list_size

    def _check_count(self, count: int) -> None:
        if count > self.max_fields * _BOMB:
            raise OversizedHeaderListError(f"a header list of more than {self.max_fields * _BOMB} fields")

    def _read(self, data: bytes) -> tuple[list[Header], bool]:
        """The fields, and whether the block left the table as it was."""
        fields: list[Header] = []
        at = size = count = 0
        changed = False
        while at < len(data):
            first = data[at]
            if first & 0x80:
                index, at = _integer(data, at, 0x7F)
                field = self._entry(index)
            elif first & 0x60 == 0x20:
                if fields:
                    raise HPACKDecodingError("dynamic table size update after a field")
                at = self._resize(data, at)
                changed = True
                continue
            else:
                field, at = self._literal(data, at, 0x3F if first & 0x40 else 0x0F)
                if first & 0x40:
                    self._insert(field)
                    changed = True
            count += 1
            self._check_count(count)
            if len(fields) <= self.max_fields and size <= self.max_header_list_size:
                fields.append(field)
            size += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
            if size > self.max_header_list_size * _BOMB:
                raise OversizedHeaderListError(
                    f"a header list of more than {self.max_header_list_size * _BOMB} bytes"
                )
        if self._limit > self.max_allowed_table_size:
            raise InvalidTableSizeError("required dynamic table size update missing")
        if changed:
            self._forget()
        return [OVERSIZED] if size > self.max_header_list_size else fields, not changed

    def _literal(self, data: bytes, at: int, prefix: int) -> tuple[Header, int]:
        start = at
        index, at = _integer(data, at, prefix)
        is_never_indexed = data[start] & 0xF0 == 0x10
        if index:
            known = self._entry(index)
            name = known[0]
            is_sound = not isinstance(known, _Unsound) or not _name_fault(name)
        else:
            name, at = _text(data, at)
            is_sound = not _name_fault(name)
        value, at = _text(data, at)
        is_sound = is_sound and not _value_fault(name, value)
        if not is_sound:
            return _Unsound((name, value)), at
        return NeverIndexedHeaderTuple(name, value) if is_never_indexed else (name, value), at

    def _entry(self, index: int) -> Header:
        if 0 < index <= _STATIC_LENGTH:
            if index == _TRANSFER_ENCODING:
                return _Unsound(_STATIC[index - 1])
            return _STATIC[index - 1]
        place = index - _STATIC_LENGTH - 1
        if not 0 <= place < len(self._entries):
            raise HPACKDecodingError(f"invalid HPACK index {index}")
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


def _name_fault(name: bytes) -> str:
    """What is wrong with a name; empty: nothing."""
    if _NAME.fullmatch(name) is None:
        return f"a field is named {name!r}"
    if name in _CONNECTION:
        return f"a field that belongs to a connection: {name!r}"
    if name[:1] == b":" and name not in PSEUDO:
        return f"an unknown pseudo-header field: {name!r}"
    return ""


def _value_fault(name: bytes, value: bytes) -> str:
    if _BAD_VALUE.search(value) is not None or (name == b"te" and value.lower() != b"trailers"):
        return f"the field {name!r} has a value that HTTP/2 forbids"
    return ""


def _fault(fields: list[Header]) -> str:
    """What is wrong with a block's fields. Pseudo-header fields come first, each once (RFC 9113 §8.3)."""
    seen: set[bytes] = set()
    is_head = True
    for field in fields:
        name = field[0]
        if isinstance(field, _Unsound):
            return _name_fault(name) or _value_fault(name, field[1])
        if name[:1] != b":":
            is_head = False
        elif not is_head or name in seen:
            return f"the pseudo-header field {name!r} comes late or twice"
        else:
            seen.add(name)
    return ""


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    """RFC 7541 §5.2."""
    if at >= len(data):
        raise HPACKDecodingError("truncated header block")
    is_huffman = data[at] & 0x80
    size, at = _integer(data, at, 0x7F)
    end = at + size
    if end > len(data):
        raise HPACKDecodingError("truncated header block")
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
            raise HPACKDecodingError("truncated header block")
        byte = data[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HPACKDecodingError("HPACK integer overflow")
