"""Which endpoint of a cluster takes a call, as data for engines."""

from typing import Literal

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
