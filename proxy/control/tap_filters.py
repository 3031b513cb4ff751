"""Which calls a tap shows, as `postern tap` writes it in a query. Pure."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from telemetry import names
from telemetry.durations import parse_duration_s
from telemetry.kinds import rpc_code
from telemetry.line_form import shown_header
from telemetry.report import Call

MAX_RPS = 100.0  # calls told a second, unless another rate is asked for
MAX_HEADERS = 16  # whose values one tap shows
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio: spreads numbers that are close together
_CLASSES = frozenset(f"{digit}xx" for digit in range(1, 6))


class TapFilter(Struct, frozen=True, kw_only=True):
    """What a call must be. callers, callees: `app` or `app.namespace`; empty parts leave all through.

    methods: verbs in upper case; of gRPC also the method, by its name or path. statuses: of HTTP, whole or as `5xx`; grpc_codes: of gRPC.
    A call is one or the other, so with both it needs to meet but one. sample: the share of calls that are shown, chosen by their ids: a
    call is shown by both of its sidecars, or by none. headers: names, in lower case, whose values are shown. ends: only ends are.
    """

    callers: frozenset[str] = frozenset()
    callees: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    path: str = ""
    statuses: frozenset[str] = frozenset()
    grpc_codes: frozenset[int] = frozenset()
    slower_ns: int = 0
    max_rps: float = MAX_RPS
    sample: float = 1.0
    headers: frozenset[bytes] = frozenset()
    ends: bool = False

    @property
    def is_of_requests(self) -> bool:
        """Whether what is known when a call begins says if it is shown: else its request is not."""
        return not (self.ends or self.statuses or self.grpc_codes or self.slower_ns)

    def may_show(self, call: Call) -> bool:
        """Whether a call is to be shown, by what is known when it begins."""
        return (
            call.path.startswith(self.path)
            and _names(self.callers, call.src, call.src_namespace)
            and _names(self.callees, call.dst, call.dst_namespace)
            and (not self.methods or not self.methods.isdisjoint(_methods(call)))
            and (self.sample >= 1 or _draw(call) < self.sample)
        )

    def shows_answer(self, call: Call, status: int, head_ns: int) -> bool:
        """Whether the head of an answer is to be shown, of a call that may be."""
        if self.ends or head_ns - call.started_ns < self.slower_ns:
            return False
        return self._has_status(status) if call.protocol != "grpc" else not self.statuses | self.grpc_codes

    def shows_end(self, call: Call) -> bool:
        """Whether the end of a call is, of one that may be shown."""
        return call.ended_ns - call.started_ns >= self.slower_ns and self._has_answer(call)

    def _has_status(self, status: int) -> bool:
        if not self.statuses:
            return not self.grpc_codes
        return not self.statuses.isdisjoint((str(status), f"{status // 100}xx"))

    def _has_answer(self, call: Call) -> bool:
        if not self.statuses and not self.grpc_codes:
            return True
        if call.protocol == "grpc":
            return rpc_code(call) in self.grpc_codes
        return self._has_status(call.status)


def parse_filter(query: Mapping[str, list[str]]) -> TapFilter:
    """The filter of a query: `from`, `to`, `method`, `path`, `status`, `grpc-status`, `slower-than`, `max-rps`, `sample`,
    `headers`, `ends`.

    A list has commas, or its key stands more than once. Raises: ValueError, in words for whoever wrote it.
    """
    if strange := sorted(set(query) - _READERS.keys()):
        raise ValueError(f"{strange[0]}: no such filter, expected {', '.join(sorted(_READERS))}")
    facts: dict[str, object] = {}
    for key, texts in query.items():
        field, read = _READERS[key]
        words = [word.strip() for text in texts for word in text.split(",") if word.strip()]
        try:
            facts[field] = read(words)
        except ValueError as error:
            raise ValueError(f"{key} {','.join(texts)!r}: {error}") from error
    return TapFilter(**facts)  # type: ignore[arg-type] # as `_READERS` pairs fields with what reads them


def _draw(call: Call) -> float:
    """From 0 to below 1, of the caller's span: it is random, and both sidecars know it."""
    context = call.context
    if not context.span_id:  # not known here: the moment that it began is as good
        return (call.started_ns * _GOLDEN % 2**64) / 2**64
    is_called = call.direction == "inbound" and context.parent_id
    return (context.parent_id if is_called else context.span_id) / 2**64


def _names(wanted: frozenset[str], app_id: str, namespace: str) -> bool:
    return not wanted or app_id in wanted or f"{app_id}.{namespace}" in wanted


def _methods(call: Call) -> tuple[str, ...]:
    if call.protocol != "grpc":
        return (call.verb,)
    return (call.verb, call.path, call.path.rpartition("/")[2])


def _all(words: list[str]) -> frozenset[str]:
    if not words:
        raise ValueError("expected a name")
    return frozenset(words)


def _verbs(words: list[str]) -> frozenset[str]:
    return _all(words) | {word.upper() for word in words}


def _path(words: list[str]) -> str:
    if len(words) != 1 or not words[0].startswith("/"):
        raise ValueError("expected one path from its start on, such as /orders")
    return words[0]


def _statuses(words: list[str]) -> frozenset[str]:
    found = frozenset(word.lower() for word in words)
    if not found or not all(one in _CLASSES or (len(one) == 3 and one.isdecimal()) for one in found):
        raise ValueError("expected statuses such as 404 or 5xx")
    return found


def _grpc_codes(words: list[str]) -> frozenset[int]:
    known = {name.replace("_", "").lower(): code for code, name in enumerate(names.GRPC_CODES)}
    found = [
        int(word) if word.isdecimal() and len(word) < 3 else known.get(word.replace("_", "").lower())
        for word in words
    ]
    if not found or None in found:
        raise ValueError("expected gRPC codes such as Unavailable, NOT_FOUND or 14")
    return frozenset(code for code in found if code is not None)


def _nanoseconds(words: list[str]) -> int:
    length_s = parse_duration_s(words[0] if len(words) == 1 else "")
    if not 0 <= length_s < 86_400:
        raise ValueError("expected a duration from 0 to a day")
    return int(length_s * 1e9)


def _rate(words: list[str]) -> float:
    try:
        rate = float(words[0]) if len(words) == 1 else 0.0
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1e6:
        raise ValueError("expected calls a second, above 0")
    return rate


def _share(words: list[str]) -> float:
    try:
        share = float(words[0]) if len(words) == 1 else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError("expected a share of calls, above 0 and at most 1, such as 0.1")
    return share


def _fields(words: list[str]) -> frozenset[bytes]:
    if not words or len(words) > MAX_HEADERS:
        raise ValueError(f"expected up to {MAX_HEADERS} names of headers")
    return frozenset(shown_header(word).encode() for word in words)


def _is_true(words: list[str]) -> bool:
    if words not in (["true"], ["false"]):
        raise ValueError("expected true or false")
    return words == ["true"]


_READERS: dict[str, tuple[str, Callable[[list[str]], object]]] = {
    "from": ("callers", _all),
    "to": ("callees", _all),
    "method": ("methods", _verbs),
    "path": ("path", _path),
    "status": ("statuses", _statuses),
    "grpc-status": ("grpc_codes", _grpc_codes),
    "slower-than": ("slower_ns", _nanoseconds),
    "max-rps": ("max_rps", _rate),
    "sample": ("sample", _share),
    "headers": ("headers", _fields),
    "ends": ("ends", _is_true),
}
