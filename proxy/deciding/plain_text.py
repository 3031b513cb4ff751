"""Answers in plain text, where Dapr has no JSON. Pure."""

from msgspec.structs import replace

from proxy import errors
from proxy.contract.fields import MAX_BAGGAGE_BYTES, MAX_BAGGAGE_MEMBERS
from proxy.contract.plan import Cause, Labels, Reply


def in_plain_text(reply: Reply, text: str) -> Reply:
    """The same answer with this body over HTTP."""
    headers = tuple(
        (name, b"text/plain; charset=utf-8" if name == b"content-type" else data)
        for name, data in reply.headers
    )
    return replace(reply, headers=headers, body=text.encode())


def bad_baggage(labels: Labels, wrong: str) -> Reply:
    """As daprd refuses it: in plain text."""
    text = f"invalid baggage header: {_BAGGAGE_FAULTS[wrong]}"
    return in_plain_text(errors.reply(Cause.BAD_REQUEST, labels, text), text)


_BAGGAGE_FAULTS = {
    "malformed": "a member is not key=value in the characters that W3C Baggage allows",
    "too-many": f"more than {MAX_BAGGAGE_MEMBERS} members",
    "too-large": f"more than {MAX_BAGGAGE_BYTES} bytes",
}
