"""Edits, compiled once per Plan and applied once per attempt in one pass over the headers."""

from msgspec import Struct
from msgspec.structs import replace

from proxy.contract.engine import HopSpan
from proxy.contract.fields import read_baggage
from proxy.contract.head import Form, Header, Headers, RequestHead
from proxy.contract.plan import Edit, Edits, Op
from proxy.wire import deadlines
from proxy.wire.grpc_timeout import format_grpc_timeout
from proxy.wire.grpc_web import as_grpc, content_type
from proxy.wire.streams import RawHead
from proxy.wire.target import as_forwarded, below

# RFC 9110 §7.6.1 and Dapr's list; `te: trailers` is put back for gRPC.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"te",
        b"trailer",
        b"proxy-authorization",
        b"proxy-authenticate",
    }
)
_CALLER_HEADERS = frozenset({b"dapr-caller-app-id", b"dapr-caller-namespace"})
_TRACE_HEADERS = frozenset({b"traceparent", b"grpc-trace-bin"})
PREVIOUS_ATTEMPTS = b"grpc-previous-rpc-attempts"
_NOTHING: frozenset[bytes] = frozenset()
_FORMS: dict[bytes, Form] = {b"whole": "whole", b"method": "method"}


class Compiled(Struct, frozen=True):
    """A Plan's edits in the order they apply: what goes, what comes. Names to remove are as `spelled` has them."""

    remove: frozenset[bytes]
    prefixes: tuple[bytes, ...]
    add: Headers
    members: Headers  # of lists: those that are missing
    hop_by_hop: bool
    caller: bool
    trace: bool
    deadline: bool
    grpc_web: bool
    http_only: bool
    baggage: bool
    baggage_keys: frozenset[bytes] | None  # that go on; None: all
    tells_trace: bool
    echoes: tuple[bytes, ...]
    form: Form
    path: bytes  # in place of any form of the path; may have a query
    base: str
    authority: bytes


def spelled(name: bytes) -> bytes:
    """CGI and WSGI apps read `dapr_caller_app_id` as `dapr-caller-app-id`: what goes, goes in either spelling."""
    return name.replace(b"_", b"-")


def compile_edits(edits: Edits) -> Compiled:
    """Sort a Plan's edits by what they do."""
    remove: set[bytes] = set()
    add: list[Header] = []
    ops = {edit.op for edit in edits}
    for edit in edits:
        if edit.op is Op.SET:
            remove.add(spelled(edit.name))
            add.append((edit.name, edit.data))
        elif edit.op is Op.ADD:
            add.append((edit.name, edit.data))
        elif edit.op is Op.REMOVE:
            remove.add(spelled(edit.name))
    if Op.CALLER in ops:
        remove |= _CALLER_HEADERS
    if Op.TRACE in ops:
        remove |= _TRACE_HEADERS
    if Op.BAGGAGE in ops:
        remove.add(b"baggage")
    return Compiled(
        remove=frozenset(remove),
        prefixes=tuple(edit.name for edit in edits if edit.op is Op.REMOVE_PREFIX),
        add=tuple(add),
        members=tuple((edit.name, edit.data) for edit in edits if edit.op is Op.LIST),
        hop_by_hop=Op.HOP_BY_HOP in ops,
        caller=Op.CALLER in ops,
        trace=Op.TRACE in ops,
        deadline=Op.DEADLINE in ops,
        grpc_web=Op.GRPC_WEB in ops,
        http_only=Op.HTTP_ONLY in ops,
        baggage=Op.BAGGAGE in ops,
        baggage_keys=next(
            (frozenset(edit.data.split(b",")) for edit in edits if edit.op is Op.BAGGAGE and edit.name), None
        ),
        tells_trace=Op.TELL_TRACE in ops,
        echoes=tuple(edit.name for edit in edits if edit.op is Op.ECHO),
        base=next((edit.data.decode("ascii") for edit in edits if edit.op is Op.BASE), ""),
        form=next((_FORMS[edit.data] for edit in edits if edit.op is Op.DAPR_PATH), "sent"),
        path=next((edit.data for edit in reversed(edits) if edit.op is Op.PATH), b""),
        authority=next((edit.data for edit in edits if edit.op is Op.AUTHORITY), b""),
    )


ONLY_OF_HOP = compile_edits((Edit(op=Op.HOP_BY_HOP),))  # where there are no edits


def edit_headers(compiled: Compiled, headers: Headers) -> list[Header]:
    """Headers without what goes, with what comes; order kept."""
    remove = compiled.remove
    if compiled.hop_by_hop:
        remove = remove | HOP_BY_HOP | listed(headers)
    if any(b"_" in name for name, _ in headers):
        headers = tuple(
            header for header in headers if not _goes(spelled(header[0]), remove, compiled.prefixes)
        )
    kept = [header for header in headers if header[0] not in remove]
    if compiled.prefixes:
        kept = [header for header in kept if not header[0].startswith(compiled.prefixes)]
    kept.extend(compiled.add)
    for name, members in compiled.members:
        missing = [item for item in members.split(b", ") if not _is_listed(kept, name, item.lower())]
        if missing:
            kept.append((name, b", ".join(missing)))
    return kept


def edit_answer(compiled: Compiled, headers: Headers, asked: RawHead, span: HopSpan) -> list[Header]:
    """The answer's headers to send on to who asked."""
    kept = edit_headers(compiled, headers)
    names = {name for name, _ in kept}
    if compiled.tells_trace and b"traceparent" not in names:
        kept.append((b"traceparent", span.traceparent))
    kept.extend(field for field in asked.headers if field[0] in compiled.echoes and field[0] not in names)
    return kept


def _is_listed(headers: list[Header], name: bytes, member: bytes) -> bool:
    listed = (item.strip().lower() for known, data in headers if known == name for item in data.split(b","))
    return any(item in (member, b"*") for item in listed)


def edit_trailers(compiled: Compiled | None, trailers: Headers) -> Headers:
    """Trailers without what goes from the head: some servers read both alike. Nothing comes: values of ours belong into the head."""
    if not trailers:
        return trailers
    remove = HOP_BY_HOP | compiled.remove if compiled is not None else HOP_BY_HOP
    prefixes = compiled.prefixes if compiled is not None else ()
    return tuple(trailer for trailer in trailers if not _goes(spelled(trailer[0]), remove, prefixes))


def _goes(name: bytes, remove: frozenset[bytes], prefixes: tuple[bytes, ...]) -> bool:
    return name in remove or name.startswith(prefixes)


def listed(headers: Headers) -> frozenset[bytes]:
    """The names that Connection lists, as `spelled` has them."""
    lines = [data for name, data in headers if name == b"connection"]
    return (
        frozenset(spelled(item.strip().lower()) for line in lines for item in line.split(b","))
        if lines
        else _NOTHING
    )


def edit_request(
    compiled: Compiled, raw: RawHead, head: RequestHead, span: HopSpan, left_s: float | None
) -> RawHead:
    """The head to send on. `left_s`: what is left of the call's time, if it has a limit."""
    headers = edit_headers(compiled, raw.headers)
    sent_as = content_type(raw) if compiled.grpc_web else b""
    grpc = raw.protocol == "grpc" or bool(sent_as)
    if sent_as:
        headers = [field for field in headers if field[0] not in {b"content-type", b"content-length"}]
        headers.append((b"content-type", as_grpc(sent_as)))
    if compiled.deadline and grpc:
        headers = [field for field in headers if field[0] != b"grpc-timeout"]
    if compiled.caller and head.peer is not None:
        _, namespace, app_id = head.peer.rsplit(
            "/", 2
        )  # spiffe://<trust domain>/ns/<namespace>/<app-id>, read in the handshake
        headers.append((b"dapr-caller-app-id", app_id.encode()))
        headers.append((b"dapr-caller-namespace", namespace.encode()))
    if grpc:
        headers.append((b"te", b"trailers"))
    if compiled.trace:
        headers.append((b"traceparent", span.traceparent))
        if grpc or any(name == b"grpc-trace-bin" for name, _ in raw.headers):
            headers.append((b"grpc-trace-bin", span.grpc_trace_bin))
    if compiled.baggage:
        sound = read_baggage(raw.headers, compiled.baggage_keys)[1]
        headers.extend([(b"baggage", sound)] if sound else [])
    if compiled.deadline and grpc and left_s is not None:
        headers.append((b"grpc-timeout", format_grpc_timeout(left_s)))
    elif compiled.deadline and raw.protocol != "websocket":
        headers = deadlines.told(headers, left_s)
    return RawHead(
        protocol="grpc" if grpc else raw.protocol,
        method=raw.method,
        authority=compiled.authority or raw.authority,
        target=target_of(compiled, head),
        headers=tuple(headers),
        framing="stream" if sent_as else raw.framing,
        length=None if sent_as else raw.length,
        scheme=b"http",
    )


def with_previous_attempts(raw: RawHead, count: int) -> RawHead:
    """A gRPC request that was sent so often before, besides what its caller's own client says of that. Source: gRPC proposal A6."""
    said = next((data for name, data in raw.headers if name == PREVIOUS_ATTEMPTS), b"")
    total = count + (int(said) if said.isdigit() and len(said) < 10 else 0)
    if count == 0:
        return raw
    headers = (field for field in raw.headers if field[0] != PREVIOUS_ATTEMPTS)
    return replace(raw, headers=(*headers, (PREVIOUS_ATTEMPTS, b"%d" % total)))


def target_of(compiled: Compiled, head: RequestHead) -> bytes:
    """The target to send on."""
    if compiled.form == "sent" and not compiled.path and not compiled.base:
        return head.target
    target = compiled.path or as_forwarded(head.path, compiled.form).encode()
    if compiled.base:
        path, mark, query = target.partition(b"?")
        target = below(compiled.base, path.decode()).encode() + mark + query
    return target + (b"&" if b"?" in target else b"?") + head.query if head.query else target
