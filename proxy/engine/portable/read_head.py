"""From a head as the wire end read it to the head that deciders see: the path, and the target to forward."""

from proxy.contract.head import RequestHead
from proxy.wire.streams import RawHead
from proxy.wire.target import BadTargetError, Target, parse


def request_head(
    raw: RawHead, listener: str, peer: str | None, address: str
) -> tuple[RequestHead, str | None]:
    """The head with its path, and why it is refused (the path is then `/`)."""
    method, refusal, authority, sent = raw.method, None, raw.authority, raw.target
    target = Target("/", b"", offset=0, authority=b"")
    if method != method.upper() or not method:
        refusal = f"the method {method.decode('latin-1')!r} is not upper-case; methods are case-sensitive (RFC 9110 §9.1)"
    elif raw.target == b"*" and method != b"OPTIONS":
        refusal = "the target '*' is for OPTIONS alone (RFC 9112 §3.2.4)"
    elif method != b"CONNECT":  # whose target is an authority, not a path: deciders answer it
        try:
            target = parse(raw.target)
        except BadTargetError as error:
            refusal = error.reason
    if target.offset:
        sent, authority = raw.target[target.offset :] or b"/", target.authority
        sent = sent if sent[:1] == b"/" else b"/" + sent
    head = RequestHead(
        listener=listener,
        protocol=raw.protocol,
        framing=raw.framing,
        method=method.decode("latin-1"),
        authority=authority.decode("latin-1").lower(),
        target=sent,
        # A gRPC server compares bytes: there the whole target is the path, or it is none.
        path=sent.decode("ascii") if raw.protocol == "grpc" and refusal is None else target.path,
        query=target.query,
        headers=raw.headers,
        peer=peer,
        peer_address=address,
        length=raw.length,
        form="absolute" if target.offset else "origin",
    )
    return head, refusal
