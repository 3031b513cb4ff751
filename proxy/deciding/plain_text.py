"""Answers in plain text, where Dapr has no JSON. Pure."""

from msgspec.structs import replace

from proxy.contract.plan import Reply


def in_plain_text(reply: Reply, text: str) -> Reply:
    """The same answer with this body over HTTP."""
    headers = tuple(
        (name, b"text/plain; charset=utf-8" if name == b"content-type" else data)
        for name, data in reply.headers
    )
    return replace(reply, headers=headers, body=text.encode())
