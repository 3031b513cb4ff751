"""A call's question to its external authorizers, and what they have changed of it."""

from collections.abc import Callable

from msgspec.structs import replace

from proxy.contract.authorizing import Authorize, Authorized, Granted, Unanswered
from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause, Edits, Plan, Reply
from proxy.engine.portable.passing import Told
from proxy.engine.portable.plans import Kept
from proxy.wire.answers import IN_ANY_FORM
from proxy.wire.edits import ONLY_OF_HOP, Compiled, compile_edits, spelled

Then = Callable[[Kept | tuple[Reply, str, Told | None]], None]
"""What takes a Plan by which the call goes on, or the answer to it, its detail and what is told beside."""


def ask(authorize: Authorize, kept: Kept, head: RequestHead, then: Then) -> Callable[[], None]:
    """Ask about a call under a Plan that names authorizers, and have `then` told once; returns what makes it too late for that."""
    waiting = [then]
    plan = kept.decision
    assert isinstance(plan, Plan)

    def tell(found: Authorized) -> None:
        if not waiting:
            return
        if isinstance(found, Granted):
            waiting.pop()(_granted(kept, found))
        elif isinstance(found, Unanswered):
            waiting.pop()((plan.local_replies[Cause.AUTHORIZER], found.detail, None))
        else:
            waiting.pop()((found, head.path, _beside(found)))

    if plan.authorizers:
        authorize(plan, head, tell)
    else:
        waiting.pop()(kept)
    return waiting.clear


def _beside(refused: Reply) -> Told:
    """What an authorizer's refusal says in fields, gRPC callers hear as well; those that are of its body or form are not told again."""
    fields = (field for field in refused.headers if not field[0].startswith(b"content-"))
    return Told(tuple(field for field in fields if field[0] not in IN_ANY_FORM), None)


def _granted(kept: Kept, found: Granted) -> Kept:
    """The decision for this call alone, with what its authorizers changed."""
    edits = kept.edits
    if found.request:
        edits = tuple(_over(one, found.request) for one in edits)
    reply_edits = kept.reply_edits
    if found.reply:
        reply_edits = _over(reply_edits or ONLY_OF_HOP, found.reply)
    return Kept(kept.decision, edits, reply_edits)


def _over(compiled: Compiled, edits: Edits) -> Compiled:
    """What authorizers remove or set is not sent as the caller, or the Plan, has it."""
    made = compile_edits(edits)
    added = (field for field in compiled.add if spelled(field[0]) not in made.remove)
    return replace(compiled, remove=compiled.remove | made.remove, add=(*added, *made.add))
