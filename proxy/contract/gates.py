"""Gates: what calls and attempts must pass first, as data. A Plan names them; engines keep them by name and know how each kind works."""

from collections.abc import Mapping

from msgspec import Struct

MAX_CALLERS = 8_192  # that a rate gate surely remembers; one that it forgets begins afresh


class ConcurrencyGate(Struct, frozen=True, kw_only=True, tag="concurrency"):
    """At most `limit` inside at once. `queue` more wait, and come in as they came; others are refused as SHED."""

    limit: int
    queue: int = 1_024


class RateGate(Struct, frozen=True, kw_only=True, tag="rate"):
    """Of each caller `burst` at once, and `per_s` a second in the long run; others are refused as RATE.

    A caller is the peer's proven SPIFFE id, else its address: `RequestHead.who`.
    """

    per_s: float
    burst: int


GateSpec = ConcurrencyGate | RateGate
"""A gate of any kind; its tag names the kind."""


class GateState(Struct, frozen=True, kw_only=True):
    """A glance at a gate. left: how often what it let through ended, by the cause's name; "" is well."""

    inside: int
    waiting: int
    left: Mapping[str, int]
