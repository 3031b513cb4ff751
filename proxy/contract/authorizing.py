"""What comes of asking an external authorizer about a call, as engines see it. Frozen.

An engine asks once for each call under a Plan that names authorizers, after its gates and before its first attempt. It only waits: whoever
is asked answers in time, and an answer that nobody waits for any more is dropped.
"""

from collections.abc import Callable

from msgspec import Struct

from proxy.contract.head import RequestHead
from proxy.contract.plan import Edits, Plan, Reply


class Granted(Struct, frozen=True, kw_only=True):
    """The call goes on. request, reply: SET, ADD and REMOVE alone, on what its app is sent and on the answer; over the Plan's own."""

    request: Edits = ()
    reply: Edits = ()


class Unanswered(Struct, frozen=True):
    """Nobody could say, and the call does not go on: the Plan's answer for `Cause.AUTHORIZER`, with this detail."""

    detail: str


Authorized = Granted | Reply | Unanswered
Authorize = Callable[[Plan, RequestHead, Callable[[Authorized], None]], None]
"""Asks about a call, and tells once what came of it, maybe at once."""


def ask_nobody(_: Plan, __: RequestHead, then: Callable[[Authorized], None]) -> None:
    """Where no authorizer can be asked, no call that needs one goes on."""
    then(Unanswered("this listener has no authorizers"))
