"""Schema of limits in a Traffic: `spec.inbound`, and how many calls a target gets; see `own_traffic.py`."""

from typing import Annotated, Literal

from msgspec import Meta, field

from policies.reading.own_faults import InboundFault
from policies.reading.own_schema import From, To
from policies.reading.schema import OwnSection

Count = Annotated[int, Meta(ge=1, le=1_000_000)]


class Rate(OwnSection, frozen=True):
    """An entry of `rates`."""

    name: str
    requests: Count
    from_: From | Literal["anonymous"] = field(name="from", default=From())
    to: To = To()
    per: str = "1s"
    burst: Count | None = None
    each: Literal["caller", "all"] = "caller"


class Connections(OwnSection, frozen=True):
    """`connections`."""

    per_caller: Count


class Concurrency(OwnSection, frozen=True):
    """`concurrency`, of calls to the app and of calls to a target."""

    limit: Count | Literal["adaptive"]
    min_limit: Count | None = None
    max_limit: Count | None = None
    queue: Annotated[int, Meta(ge=0, le=100_000)] = 128
    queue_timeout: str = "100ms"


class Lag(OwnSection, frozen=True):
    """`lag`."""

    above: str = "250ms"
    for_: str = field(name="for", default="2s")


class Inbound(OwnSection, frozen=True):
    """`spec.inbound`: calls to the app."""

    rates: list[Rate] = field(default_factory=list)
    connections: Connections | None = None
    concurrency: Concurrency | None = None
    lag: Lag | None = None
    faults: list[InboundFault] = field(default_factory=list)


class Throttle(OwnSection, frozen=True):
    """`throttle` of a target."""

    ratio: Annotated[int, Meta(ge=1, le=100)] | Annotated[float, Meta(ge=1.0, le=100.0)] = 2
    window: str = "120s"
