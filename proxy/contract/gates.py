"""Gates: what calls and attempts must pass first, as data. A Plan names them; engines keep them by name and know how each kind works."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

MAX_CALLERS = 8_192  # that a rate gate surely remembers; one that it forgets begins afresh

MIN_RTT_EVERY_S: Final = 60.0  # from one measurement of an adaptive limit's lowest round trip to the next
MIN_RTT_JITTER: Final = 0.15  # of that, either way, so that many proxies do not measure at once
MIN_RTT_CALLS: Final = 50  # of one measurement
MIN_RTT_FOR_S: Final = 5.0  # at most, where calls are few or hang
SAMPLE_S: Final = 0.1  # from one change of an adaptive limit to the next
HEADROOM: Final = 0.25  # of the lowest round trip, by which others may be longer without a lower limit
THROTTLE_RATIO: Final = 2.0  # requests to accepted ones, up to which none is throttled
THROTTLE_WINDOW_S: Final = 120.0
THROTTLE_FROM: Final = 10  # requests in the window, below which none is throttled
LAG_SAMPLE_S: Final = 1.0  # from one look at an engine's lag to the next


class ConcurrencyGate(Struct, frozen=True, kw_only=True, tag="concurrency"):
    """At most `limit` inside at once. `queue` more wait, and come in as they came; others are refused as SHED.

    wait_s: how long one waits at most, 0: as long as it likes. newest_first: once the queue was full or one waited so long, and until it
    is empty, who came last comes in first, and one more takes the place of who waits longest: a wait that is short for some beats one
    that is too long for all.
    """

    limit: int
    queue: int = 1_024
    wait_s: float = 0.0
    newest_first: bool = False


class AdaptiveGate(Struct, frozen=True, kw_only=True, tag="adaptive"):
    """The same with a limit of its own finding: lowered as those inside take longer than when they are few, and raised otherwise.

    Each `SAMPLE_S` the limit becomes `limit * (1 + HEADROOM) * lowest / sample + sqrt(limit)`, between `min_limit` and `max_limit`, by
    the medians of how long those took until their answer began, less what their request took to come, that ended since (sample), and
    when `min_limit` were inside at once (lowest). What is answered before its request is whole streams: it is inside, and no sample.
    """

    min_limit: int = 3
    max_limit: int = 1_000
    queue: int = 128
    wait_s: float = 0.1
    newest_first: bool = True


class RateGate(Struct, frozen=True, kw_only=True, tag="rate"):
    """Of each caller `burst` at once, and `per_s` a second in the long run; others are refused as RATE.

    A caller is the peer's proven SPIFFE id, else its address: `RequestHead.who`. A bucket of tokens, which is what the Generic Cell Rate
    Algorithm (ITU-T I.371) lets through, in other words. is_shared: all callers take from one bucket.
    name: of the limit, told to who is refused, with `policy`, its item of a RateLimit-Policy field, and with when to come again. Empty:
    nothing is told.
    """

    per_s: float
    burst: int
    is_shared: bool = False
    name: str = ""
    policy: str = ""


class ThrottleGate(Struct, frozen=True, kw_only=True, tag="throttle"):
    """Refuses as SHED, by chance, as many as a callee would: `max(0, (requests - ratio * accepts) / (requests + 1))` of `window_s`.

    Not accepted is what the callee did not get or had no room for: see `heard_by_gates`. Source: Site Reliability Engineering, "Handling
    Overload" (adaptive throttling).
    """

    ratio: float = THROTTLE_RATIO
    window_s: float = THROTTLE_WINDOW_S


class LagGate(Struct, frozen=True, kw_only=True, tag="lag"):
    """Refuses all as SHED while the engine itself has been late by more than `above_s` for `for_s`."""

    above_s: float = 0.25
    for_s: float = 2.0


class EachGate(Struct, frozen=True, kw_only=True, tag="each"):
    """At most `limit` inside at once of each caller; others are refused as RATE."""

    limit: int


FaultKind = Literal["delay", "abort", "unavailable", "reset", "reset-late", "truncate", "bandwidth"]


class FaultGate(Struct, frozen=True, kw_only=True, tag="fault"):
    """Lets everybody in, and does harm to some attempts on purpose: to a `share` of them by chance, and to `times` at most, 0: without end.

    seed: from 0 to 2**53 - 1, by which the same ones are harmed in each run; -1: none. The harm, by `kind`:
    delay: it waits, `least_s` to `most_s`. The others come once it has an endpoint, of which they are the failures.
    abort: it is answered by `status`, of gRPC by `grpc_code`. unavailable: the endpoint accepts no connection. reset: it breaks off before
    its answer. reset-late: behind the answer's head. truncate: behind so many `bytes` of a body that has more. bandwidth: its answer's
    body comes by so many `bytes` a second.
    """

    name: str
    kind: FaultKind
    share: float = 1.0
    times: int = 0
    seed: int = -1
    least_s: float = 0.0
    most_s: float = 0.0
    status: int = 503
    grpc_code: int = 14
    bytes: int = 0


GateSpec = ConcurrencyGate | AdaptiveGate | RateGate | ThrottleGate | LagGate | EachGate | FaultGate
"""A gate of any kind; its tag names the kind."""


def connections_gate(listener: str) -> str:
    """The name of the gate that each connection of a listener passes once its caller is proven. One that is refused is closed."""
    return f"connections:{listener}"


class GateState(Struct, frozen=True, kw_only=True):
    """A glance at a gate. left: how often what it let through ended, by the cause's name; "" is well.

    refused: how often it let nobody in, by the reason: queue-full, queue-timeout, rate, throttle, lag, connections; of a fault, which lets
    everybody in, how often it did harm, by its kind. limit: that of an
    adaptive gate.
    """

    inside: int
    waiting: int
    left: Mapping[str, int]
    refused: Mapping[str, int] = {}
    limit: int | None = None
