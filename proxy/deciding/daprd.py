"""Calls that are for a daprd, or from one, by its envelope: through the translators of `proxy.api.daprd`, and on from there. Pure."""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from proxy import errors
from proxy.contract.head import FROM_DAPRD, HASH_HEADER, OF_ENVELOPES
from proxy.contract.plan import NEVER, Cause, Edit, Edits, Labels, Op, Plan, Reply, RetryPolicy, Route
from proxy.contract.recording import RecordingHead
from proxy.deciding.app_answers import CauseReplies
from proxy.deciding.app_plan import STRIP, AppView
from proxy.deciding.callee import Callee, parse_callee

#: What daprds call each other by.
ENVELOPES: Final = "dapr.proto.internals.v1.ServiceInvocation"
TO_DAPRD: Final = "daprd-out"  # a cluster: the other translator
#: Redialled at once, then given up: the call that is translated has retry rules of its own.
_AGAIN: Final = RetryPolicy(
    attempts=None,
    on=frozenset({Cause.CONNECT, Cause.REFUSED, Cause.TLS_IDENTITY}),
    grpc_codes=frozenset(),
    delays_s=lambda: iter((0.0, 0.05)),
)


def from_daprd(app: AppView, labels: Labels, trust_domain: str) -> Plan:
    """The Plan for a peer's envelope: opened by the translator, whose request is judged. Labels name no callee: it isn't counted twice,
    nor traced.
    """
    labels = replace(labels, sampling=NEVER)
    edits: Edits = (
        Edit(op=Op.HOP_BY_HOP),
        *STRIP,
        Edit(op=Op.CALLER),
        Edit(op=Op.SET, name=b"postern-trust-domain", data=trust_domain.encode()),
        Edit(op=Op.DEADLINE),
    )
    return Plan(
        labels=labels,
        routes=(Route(cluster=FROM_DAPRD, edits=edits),),
        reply_edits=(Edit(op=Op.HOP_BY_HOP),),
        local_replies=CauseReplies(labels, "dapr", "this proxy's translator", app.app_id, end="peer"),
    )


def by_translator(edits: Edits, surface: str, hash_header: str) -> Route:
    """The route of a call that is not gRPC to a peer that turns out to be a daprd. edits: those of the route to the peer.

    hash_header: by which its endpoint is chosen, "" where by none: the envelope has that of the call.
    """
    told = [Edit(op=Op.SET, name=b"postern-surface", data=surface.encode())]
    if hash_header:
        told.append(Edit(op=Op.SET, name=HASH_HEADER, data=hash_header.encode()))
    return Route(cluster=TO_DAPRD, weight=0, edits=(*edits, *told))


def to_daprd(
    head: RecordingHead,
    app: AppView,
    known: frozenset[str],
    expected: Callable[[Callee], frozenset[str]],
    hash_header: Callable[[Callee], str],
) -> Plan | Reply:
    """The Plan for an envelope that the translator has made. expected: the SPIFFE ids that may answer for a callee. hash_header: as above.

    Nothing is counted or traced here, nor limited: all that is done to the call that was translated.
    """
    name = head.naming(b"postern-callee") or ""
    labels = Labels(
        direction="outbound",
        surface="dapr",
        src=app.app_id,
        src_namespace=app.namespace,
        is_inner=True,
        sampling=NEVER,
    )
    callee = parse_callee(name, app.namespace)
    if callee is None or callee.key not in known:
        text = f"no endpoint of {name} is known any more"
        found: Plan | Reply = errors.reply(Cause.NO_ENDPOINT, labels, text, surface="dapr")
        return replace(found, scopes=(() if callee is None else (f"name:{callee.key}",)))
    edits: Edits = (
        Edit(op=Op.HOP_BY_HOP),
        *STRIP,
        Edit(op=Op.AUTHORITY, data=callee.name.encode()),
        Edit(op=Op.SET, name=b"postern-callee", data=callee.name.encode()),
    )
    hashed = hash_header(callee).encode()
    if hashed and hashed not in OF_ENVELOPES:
        edits = (*edits, Edit(op=Op.REMOVE, name=hashed))  # the app gets it in the envelope
    return Plan(
        labels=labels,
        routes=(Route(cluster=callee.key, expect=expected(callee), edits=edits),),
        retries=(_AGAIN,),
        connect_s=app.connect_s,
        replay_bytes=app.replay_bytes,
        reply_edits=(Edit(op=Op.HOP_BY_HOP),),
        local_replies=CauseReplies(labels, "dapr", callee.name, "", end="peer"),
        scopes=(f"name:{callee.key}", "access", "app", "resiliency"),
    )
