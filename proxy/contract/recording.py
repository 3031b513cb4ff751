"""What a decision may depend on, and the record of what it read.

`vary` is recorded, never declared: a decider asks through `RecordingHead`, which writes down every facet it read. Two heads that are equal
in what one decision read get equal decisions, so an engine may reuse the Plan until one of its `scopes` is replaced.
"""

import binascii
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from proxy.contract.fields import carries, read_baggage
from proxy.contract.head import Form, RequestHead


class Facet(Enum):
    """What a decision may depend on."""

    LISTENER = "listener"
    PROTOCOL = "protocol"
    FRAMING = "framing"
    METHOD = "method"
    AUTHORITY = "authority"
    FORM = "form"  # origin or absolute
    PATH = "path"  # always the class in a pushed table
    PEER = "peer"
    HEADER = "header"  # the value of a naming header, or membership in a pushed set
    CARRIES = "carries"  # whether any field matches a pushed set of patterns
    BAGGAGE = "baggage"  # what is wrong with it
    WHOLE = "whole"  # all of it: a decision that turns on this is for the one call, and is not kept


# Headers whose value names a callee, or what a page asks for: short, not secret, so the value itself may be a key. Of `authorization`
# it is the app-id in `http://dapr-app-id:<app-id>@localhost` alone; any other credentials read as absent.
NAMING_HEADERS = frozenset(
    {
        b"dapr-app-id",
        b"dapr-callee-app-id",
        b"postern-callee",
        b"postern-peer",
        b"postern-surface",
        b"origin",
        b"access-control-request-headers",
        b"access-control-request-method",
        b"authorization",
        b"max-forwards",
    }
)
# A longer naming value is never a key: deciders themselves read LONG, which names nobody. Who calls is always the whole value.
MAX_KEY_BYTES = 256
LONG = "\x00long"


class Table(Protocol):
    """A pushed table: maps a path as sent to one of few classes."""

    def classify(self, path: str) -> Hashable:
        """The class of a path; equal paths give equal classes."""


class Shape(Struct, frozen=True, kw_only=True):
    """How an engine may classify a table's paths by itself; paths in one class there must be in one class here.

    `rules` of access tables: the pattern as the ordered reading compares it, as the open one does, and its verbs
    (`policies/rules/matcher.py`). Of templates: the text, or where case is folded the text in lower case as the second, the other one
    empty (`policies/rules/templates.py`). form: which path counts, see `Form`.
    """

    kind: Literal["out-paths", "services", "access", "templates"]
    rules: tuple[tuple[str, str, frozenset[str]], ...] = ()
    fold_case: bool = False
    form: Form = "sent"


@runtime_checkable
class ShapedTable(Table, Protocol):
    """A table that says how it classes."""

    @property
    def shape(self) -> Shape | None:
        """None: only `classify` can tell."""


class Read(Struct, frozen=True, kw_only=True):
    """One facet that a decider read. `table`: which pushed table or set gave the answer."""

    facet: Facet
    name: bytes = b""
    table: int | None = None


class Tables:
    """Pushed path tables and header sets by number. Owned by one engine; only `put_*` and `drop` write."""

    def __init__(self) -> None:
        self._paths: dict[int, Table] = {}
        self._sets: dict[int, frozenset[bytes]] = {}

    def put_paths(self, number: int, table: Table) -> None:
        """Add or replace a path table."""
        self._paths[number] = table

    def put_set(self, number: int, members: frozenset[bytes]) -> None:
        """Add or replace a header set."""
        self._sets[number] = members

    def facet_value(self, read: Read, head: RequestHead) -> Hashable:
        """What `head` has in the facet that `read` names."""
        match read.facet:
            case Facet.PATH:
                return self._paths[read.table if read.table is not None else 0].classify(head.path)
            case Facet.HEADER if read.table is not None:
                return any(k == read.name and v in self._sets[read.table] for k, v in head.headers)
            case Facet.HEADER:
                return _naming_value(head, read.name)
            case Facet.CARRIES:
                return carries(head.headers, self._sets[read.table or 0])
            case Facet.BAGGAGE:
                allowed = None if read.table is None else self._sets[read.table]
                return read_baggage(head.headers, allowed)[0]
            case facet:
                return _PLAIN[facet](head)


def _naming_value(head: RequestHead, name: bytes) -> str | None:
    found = head.get(name)
    if found is not None and name == b"authorization":
        found = _basic_app_id(found)
    if found is None:
        return None
    return found.decode("latin-1").strip() if len(found) <= MAX_KEY_BYTES else LONG


def _basic_app_id(credentials: bytes) -> bytes | None:
    """X of `Basic base64("dapr-app-id:X")`, None for any other credentials (RFC 7617)."""
    scheme, _, encoded = credentials.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, app_id = binascii.a2b_base64(encoded.strip(), strict_mode=True).partition(b":")
    except ValueError:
        return None
    return app_id if colon and user.lower() == b"dapr-app-id" and b":" not in app_id else None


_PLAIN: dict[Facet, Callable[[RequestHead], Hashable]] = {
    Facet.LISTENER: lambda head: head.listener,
    Facet.PROTOCOL: lambda head: head.protocol,
    Facet.FRAMING: lambda head: head.framing,
    Facet.METHOD: lambda head: head.method if len(head.method) <= 32 else "*",
    Facet.AUTHORITY: lambda head: head.authority if len(head.authority) <= MAX_KEY_BYTES else LONG,
    Facet.PEER: lambda head: head.peer,
    Facet.FORM: lambda head: head.form,
    Facet.WHOLE: lambda _: None,
}


class RecordingHead:
    """What a decider sees of a head: each question answers *and* records a `Read`, so `vary` can't be forgotten."""

    __slots__ = ("_head", "_reads", "_tables")

    def __init__(self, head: RequestHead, tables: Tables) -> None:
        self._head = head
        self._tables = tables
        self._reads: dict[Read, Hashable] = {}

    def _ask(self, read: Read) -> Hashable:
        if read not in self._reads:
            self._reads[read] = self._tables.facet_value(read, self._head)
        return self._reads[read]

    def listener(self) -> str:
        """The id of the listener."""
        return str(self._ask(_LISTENER))

    def protocol(self) -> str:
        """http1, http2, grpc or websocket."""
        return str(self._ask(_PROTOCOL))

    def framing(self) -> str:
        """none, length or stream."""
        return str(self._ask(_FRAMING))

    def method(self) -> str:
        """The verb as sent."""
        return str(self._ask(_METHOD))

    def authority(self) -> str:
        """Host or :authority, lower-case, as sent otherwise."""
        return str(self._ask(_AUTHORITY))

    def peer(self) -> str | None:
        """The proven SPIFFE id."""
        found = self._ask(_PEER)
        return None if found is None else str(found)

    def form(self) -> str:
        """origin, or absolute: the request was sent as to an HTTP proxy."""
        return str(self._ask(_FORM))

    def path_class(self, table: int) -> Hashable:
        """The class of the path in a pushed table."""
        return self._ask(Read(facet=Facet.PATH, table=table))

    def naming(self, name: bytes) -> str | None:
        """The value of a naming header; raises ValueError for any other header, which might hold a secret."""
        if name not in NAMING_HEADERS:
            raise ValueError(f"{name!r} is not a naming header: its value must not become a key")
        found = self._ask(Read(facet=Facet.HEADER, name=name))
        return None if found is None else str(found)

    def header_is(self, name: bytes, accepted: int) -> bool:
        """Whether a header's value is in a pushed set; the value itself is not kept."""
        return bool(self._ask(Read(facet=Facet.HEADER, name=name, table=accepted)))

    def carries(self, patterns: int) -> bool:
        """Whether any field matches a pushed set of patterns; see `carries`."""
        return bool(self._ask(Read(facet=Facet.CARRIES, table=patterns)))

    def whole(self) -> RequestHead:
        """All that arrived, for decisions on what must not become a key: a secret, a query, a value of one call."""
        self._ask(_WHOLE)
        return self._head

    def moved(self, path: str, query: str = "") -> "RecordingHead":
        """The same head on its way to another path, which follows from what was read: what is asked about it is not recorded again.

        query: goes before the one that it has.
        """
        return _MovedHead(self, path, query)

    @property
    def moved_to(self) -> tuple[str, str] | None:
        """That path, and what was put before the query; None where it goes where it was sent."""
        return None

    def baggage(self, allowed: int | None = None) -> str:
        """What is wrong with the baggage: "" (nothing), malformed, too-many or too-large; or not-allowed, of keys beyond a pushed set."""
        return str(self._ask(Read(facet=Facet.BAGGAGE, table=allowed)))

    @property
    def may_keep(self) -> bool:
        """Whether the decision may be used again."""
        return _WHOLE not in self._reads

    @property
    def vary(self) -> tuple[Read, ...]:
        """What was read so far, in order."""
        return tuple(self._reads)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """The answers to `vary`, in the same order."""
        return tuple(self._reads.values())


class _MovedHead(RecordingHead):
    """Answers of the path that a request was moved to, and as its origin of everything else."""

    __slots__ = ("_there", "_to")

    def __init__(self, origin: RecordingHead, path: str, query: str) -> None:
        before = origin.moved_to[1] if origin.moved_to is not None else ""
        sent = origin._head.query.decode("latin-1")
        super().__init__(origin._head, origin._tables)
        self._reads = origin._reads
        self._to = (path, "&".join(filter(None, (query, before))))
        whole = "&".join(filter(None, (self._to[1], sent))).encode("latin-1")
        self._there = replace(origin._head, path=path, query=whole)

    @property
    def moved_to(self) -> tuple[str, str] | None:
        return self._to

    def whole(self) -> RequestHead:
        super().whole()
        return self._there

    def _ask(self, read: Read) -> Hashable:
        return self._tables.facet_value(read, self._there) if read.facet is Facet.PATH else super()._ask(read)


_LISTENER = Read(facet=Facet.LISTENER)
_PROTOCOL = Read(facet=Facet.PROTOCOL)
_FRAMING = Read(facet=Facet.FRAMING)
_METHOD = Read(facet=Facet.METHOD)
_AUTHORITY = Read(facet=Facet.AUTHORITY)
_PEER = Read(facet=Facet.PEER)
_FORM = Read(facet=Facet.FORM)
_WHOLE = Read(facet=Facet.WHOLE)
