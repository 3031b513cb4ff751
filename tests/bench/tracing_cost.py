"""What tracing costs in Python for each call, in units of a fixed piece of Python that the same run times beside it.

The unit is a record of a tuple of two clock readings and two ids: 0.2 µs on a quick machine, so that five are a microsecond. It is the
portable engine that pays; the native one begins, counts and writes spans by itself, and hands on none that is neither sampled nor failed.
"""

import random
import time
from collections.abc import Callable
from typing import Final

from proxy.contract.head import Headers
from proxy.control.hop_tracing import HopTracing
from telemetry.context import Sampler, SpanContext
from telemetry.report import Call
from telemetry.spans import span_of
from telemetry.tracing import Tracer
from tests.bench.results import Verdict

ROOT_UNITS: Final = 5.0  # 1 µs: ids, and the decision
CHILD_UNITS: Final = 12.0  # with the caller's traceparent read, and ours written
SAMPLED_UNITS: Final = 25.0  # 5 µs
_CALLS: Final = 50  # a round is shorter than a turn on a core, so that some round is undisturbed
_ROUNDS: Final = 1_000
_HEADERS: Final[Headers] = (
    (b"accept", b"*/*"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
    (b"user-agent", b"bench"),
)


def tracing_costs() -> list[Verdict]:
    """Whether unsampled calls and a sampled span are as cheap as they are to be."""
    tracing = HopTracing(Sampler(0.0, random.Random(1)))
    unnamed = tuple(header for header in _HEADERS if header[0] != b"traceparent")
    measured = (
        ("unsampled root", ROOT_UNITS, _units(lambda: tracing.begin(unnamed, grpc=True))),
        ("unsampled child", CHILD_UNITS, _units(lambda: tracing.begin(_HEADERS, grpc=True).traceparent)),
        ("sampled span", SAMPLED_UNITS, _units(_sampled())),
    )
    return [
        Verdict(f"{what}: {units:.1f} units of Python per call (at most {most:g})", units <= most)
        for what, most, units in measured
    ]


def _units(work: Callable[[], object]) -> float:
    """How many units a piece of work takes: the least of the rounds of each, taken in turn."""
    taken: list[tuple[object, ...]] = []
    clock, ids = time.time_ns, random.Random(1).getrandbits

    def unit() -> None:
        taken.append((clock(), clock(), ids(64), ids(128)))

    unit_s = work_s = float("inf")
    for _ in range(_ROUNDS):
        taken.clear()
        unit_s, work_s = min(unit_s, _once(unit)), min(work_s, _once(work))
    return work_s / unit_s


def _once(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(_CALLS):
        work()
    return time.perf_counter() - began


def _sampled() -> Callable[[], object]:
    tracer, began = Tracer("cart"), time.time_ns()
    call = Call(
        direction="outbound",
        protocol="http",
        surface="dapr",
        src="cart",
        dst="checkout",
        src_namespace="shop",
        dst_namespace="shop",
        verb="GET",
        path="/orders/1",
        status=200,
        grpc_code=None,
        cause=None,
        context=SpanContext(1, 2, 0, sampled=True),
        started_ns=began,
        head_ns=began + 1_000,
        ended_ns=began + 2_000,
        endpoint="10.0.0.7:5000",
    )

    def work() -> None:
        span = span_of(call, "cart")
        assert span is not None
        tracer.record(span)

    return work
