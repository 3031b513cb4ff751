"""What an authorizer is told of a call. Pure.

Whose call it is says the certificate, or nobody: what a caller writes into headers of identity is not told.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from policies.rules.authorizers import ExternalAuthorizer
from policies.rules.caller import Caller
from proxy.contract.head import RequestHead
from proxy.contract.plan import Op, Plan
from proxy.deciding.app_plan import STRIP
from proxy.settings.values import Settings
from proxy.wire.edits import HOP_BY_HOP, compile_edits, listed, spelled, target_of
from proxy.wire.target import invoked

OUTBOUND: Final = "http:"  # how names of handlers begin that stand before calls of our own app: they are asked about its own request
_MOVING: Final = frozenset({Op.DAPR_PATH, Op.PATH, Op.BASE})
_NEVER: Final = frozenset({edit.name for edit in STRIP if edit.op is Op.REMOVE} | {b"host"})
_NEVER_PREFIXES: Final = tuple(edit.name for edit in STRIP if edit.op is Op.REMOVE_PREFIX)
_PROTOCOLS: Final = {"http1": "HTTP/1.1", "http2": "HTTP/2", "grpc": "HTTP/2", "websocket": "HTTP/1.1"}


class Party(NamedTuple):
    """One end of a call. spiffe_id: as its certificate proves it, "" where nothing does; name: `app.namespace`."""

    spiffe_id: str = ""
    name: str = ""
    app_id: str = ""
    namespace: str = ""
    address: str = ""


class Question(NamedTuple):
    """A call to be judged. target: its path and query as the app will be sent them. headers: what may be told, lower-case, in order."""

    caller: Party
    callee: Party
    method: str
    target: str
    host: str
    protocol: str
    headers: tuple[tuple[str, str], ...]
    length: int | None = None

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query, without `?`."""
        return self.target.partition("?")[2]

    def joined(self) -> Mapping[str, str]:
        """The headers, the lines of one with commas between (RFC 9110 §5.3), and HTTP/2's pseudo-headers, as Envoy tells them."""
        made = {":method": self.method, ":path": self.target, ":authority": self.host, ":scheme": "http"}
        for name, value in self.headers:
            made[name] = f"{made[name]},{value}" if name in made else value
        return made


def own_party(settings: Settings) -> Party:
    """The app of a sidecar, as its certificate proves it."""
    own = Caller(settings.trust_domain, settings.namespace, settings.app_id)
    proven = own.principal if settings.mtls else ""
    return Party(proven, app_id=settings.app_id, namespace=settings.namespace)


def question(
    plan: Plan, head: RequestHead, authorizer: ExternalAuthorizer, name: str, own: Party
) -> Question:
    """About a call under a Plan. name: under which the Plan names the authorizer. own: this proxy's app, with its SPIFFE ID."""
    labels = plan.labels
    caller = Party(app_id=labels.src, namespace=labels.src_namespace, spiffe_id=labels.peer_id)
    callee = own
    if labels.direction == "outbound":
        caller = own
        callee = Party(app_id=labels.dst, namespace=labels.dst_namespace, spiffe_id=labels.peer_id)
    return Question(
        caller=_named(caller)._replace(address=head.peer_address),
        callee=_named(callee),
        method=head.method,
        target=told_target(plan, head, is_outbound=name.startswith(OUTBOUND)),
        host=head.authority,
        protocol=_PROTOCOLS[head.protocol],
        headers=tuple(_told(head, authorizer.headers)),
        length=head.length,
    )


def told_target(plan: Plan, head: RequestHead, *, is_outbound: bool) -> str:
    """The target that the app will be sent; of a request of our own app by a path of Dapr's API, where nothing moved it, behind that of the
    API as it asked for it: no spelling of what is sent leads round a rule.
    """
    edits = tuple(edit for edit in plan.routes[0].edits if edit.op in _MOVING)
    is_moved = any(edit.op is Op.PATH for edit in edits)
    if is_outbound and not is_moved:
        edits = tuple(edit for edit in edits if edit.op is Op.DAPR_PATH)
    found = target_of(compile_edits(edits), head) if edits else head.target
    named = invoked(head.path) if is_outbound and not is_moved and edits else None
    if named is not None:
        found = b"/v1.0/invoke/%s/method%s" % (named[0].encode(), found)
    text = found.decode("latin-1")
    if "://" in text.partition("?")[0] and not text.startswith("/"):  # absolute-form (RFC 9112 §3.2.2)
        parts = urlsplit(text)
        text = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return text


def _named(party: Party) -> Party:
    return party._replace(name=".".join(filter(None, (party.app_id, party.namespace))))


def _told(head: RequestHead, wanted: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    never = _NEVER | HOP_BY_HOP | listed(head.headers)
    for name, data in head.headers:
        if spelled(name) in never or spelled(name).startswith(_NEVER_PREFIXES):
            continue
        text = name.decode("latin-1")
        if wanted is None or text in wanted:
            yield text, data.decode("utf-8", "replace")
