"""Max-Forwards of OPTIONS and TRACE (RFC 9110 §7.6.2). Both proxies of a call are one hop: the caller's alone counts. Pure."""

import re

from msgspec.structs import replace

from proxy.contract.plan import Decision, Edit, Op, Plan
from proxy.contract.recording import RecordingHead

NAME = b"max-forwards"
_COUNT = re.compile(r"[0-9]{1,9}")


def read_max_forwards(head: RecordingHead) -> int | None:
    """How many more times a request may be forwarded; None: as often as it takes."""
    text = head.naming(
        NAME
    )  # first: hardly a request has it, and what is not asked is no part of a kept decision
    if text is None or _COUNT.fullmatch(text) is None:
        return None
    return int(text) if head.method() in ("OPTIONS", "TRACE") and head.protocol() != "grpc" else None


def forwarded_once(found: Decision, left: int) -> Decision:
    """The same decision, with one hop less left for the next recipient."""
    if not isinstance(found, Plan):
        return found
    fewer = Edit(op=Op.SET, name=NAME, data=b"%d" % (left - 1))
    return replace(found, routes=tuple(replace(route, edits=(*route.edits, fewer)) for route in found.routes))
