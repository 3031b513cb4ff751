"""Calls as they go on, for whoever looks: what an engine tells of one that began, and of its answer. How it ended is an `Outcome`.

Nothing of this is made while nobody looks: an engine asks one flag for each call.
"""

from msgspec import Struct

from proxy.contract.head import Headers, RequestHead
from proxy.contract.plan import Labels


class Watch(Struct, frozen=True, kw_only=True):
    """Somebody looks. fields: names, in lower case, whose values in requests and answers are told; others are not even copied."""

    fields: frozenset[bytes] = frozenset()


class CallBegun(Struct, frozen=True, kw_only=True):
    """What to do about a call is decided. Its head has the fields of the `Watch` alone.

    One that waits for its callee to be found is told as it begins to wait, with the labels of the answer that it gets unless it is found
    in time, and again once it is decided.

    number: the same in all that the engine tells of the call. trace: the span of this hop; None: it is not known here yet.
    """

    number: int
    head: RequestHead
    labels: Labels
    trace: object | None
    started_ns: int


class AnswerBegun(Struct, frozen=True, kw_only=True):
    """The head of an answer came, and is passed on. Answers that a proxy makes end at once: of them only the end is told."""

    number: int
    head_ns: int
    status: int
    fields: Headers
