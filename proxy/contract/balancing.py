"""Which endpoint of a cluster takes a call, and which take none for a while, as data for engines."""

from typing import Literal, NamedTuple

from msgspec import Struct

BalancingPolicy = Literal["latency", "least-requests", "round-robin", "random", "ring-hash"]


class Balancing(Struct, frozen=True, kw_only=True):
    """How a cluster's calls are spread.

    header, key: of `ring-hash`, what decides: the first value of a header (lower case) of the request, or bytes that are the same for all
    calls. A call without the header is balanced by latency.
    """

    policy: BalancingPolicy = "latency"
    header: bytes = b""
    key: bytes = b""


class Outliers(Struct, frozen=True, kw_only=True):
    """When an endpoint of a cluster of two or more is left out for what it answers: a 5xx, gRPC's UNKNOWN, DEADLINE_EXCEEDED, INTERNAL and
    UNAVAILABLE, no answer in time, or one that broke off. What can't be reached is left out by itself, whatever is said here.

    consecutive: so many in a row put it out (0: never). rate_factor: so many standard deviations below the mean success rate of all put it
    out (0: never), where within interval_s at least rate_endpoints had rate_requests calls each. It is out for ejection_s, times how often
    it was out, at most max_ejection_s, and up to a tenth longer; each interval_s in between takes one time back. Then one call probes it,
    and it has fewer calls than others for slow_start_s. At most max_percent of the endpoints are out, or one, and never the last that
    takes calls; where more than half are, as others went, none is left out.
    """

    consecutive: int = 5
    rate_endpoints: int = 5
    rate_requests: int = 100
    rate_factor: float = 1.9
    ejection_s: float = 30.0
    max_ejection_s: float = 300.0
    max_percent: int = 10
    interval_s: float = 10.0
    slow_start_s: float = 10.0


EjectionReason = Literal["failures", "success-rate", "probe"]
TurnReason = EjectionReason | Literal[""]


class EndpointTurn(NamedTuple):
    """An endpoint was left out for `for_s`, by now `times` times, or takes calls again (reason "")."""

    cluster: str
    address: str
    reason: TurnReason
    for_s: float
    times: int
