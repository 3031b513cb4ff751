"""Schema of `faults` in a Traffic; see `own_traffic.py`."""

from typing import Annotated, Literal

from msgspec import Meta, field

from policies.reading.own_schema import From, To
from policies.reading.schema import OwnSection


class FaultWhen(OwnSection, frozen=True):
    """`when` of a fault."""

    header: dict[str, list[str]] = field(default_factory=dict)


class Between(OwnSection, frozen=True):
    """`delay` of a fault, drawn between two."""

    least: str = field(name="min")
    most: str = field(name="max")


class Abort(OwnSection, frozen=True):
    """`abort` of a fault."""

    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    grpc: int | str | None = None


class Fault(OwnSection, frozen=True):
    """An entry of `faults` of a target."""

    name: str
    to: To = To()
    when: FaultWhen = FaultWhen()
    percent: Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0.0, le=100.0)] = 100
    times: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    seed: Annotated[int, Meta(ge=0, le=9_007_199_254_740_991)] | None = None
    delay: Between | str | None = None
    abort: Abort | None = None
    unavailable: bool = False
    reset: Literal["before-head", "after-head"] | None = None
    truncate: Annotated[int, Meta(ge=0, le=1_000_000_000_000)] | None = None
    bandwidth: Annotated[int, Meta(ge=1, le=1_000_000_000_000)] | None = None


class InboundFault(Fault, frozen=True):
    """An entry of `faults` of `inbound`."""

    from_: From | Literal["anonymous"] = field(name="from", default=From())
