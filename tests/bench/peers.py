"""Many peers in one process: an engine, an identity and a port for each app-id, all before the same app. Run as a process.

They are what a caller meets at 200 sidecars (a certificate, a port and a connection each); what they lack is what a sidecar is beyond its
engine, which 200 times would not fit on one machine. Prints `{"peers": {APP_ID: PORT}}` once all listen.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from proxy.contract.balancing import EndpointTurn
from proxy.contract.breakers import BreakerTurn
from proxy.contract.engine import (
    Cluster,
    HopSpan,
    Limits,
    ListenerSpec,
    Measures,
    Sampling,
    SpanIds,
    TlsIdentity,
    Upstream,
)
from proxy.contract.head import Header
from proxy.contract.outcome import Outcome, Phases, Tally
from proxy.contract.plan import Edit, Labels, Op, Plan, Route
from proxy.contract.recording import RecordingHead
from proxy.contract.watching import AnswerBegun, CallBegun
from proxy.deciding.peer import peer_leaf
from proxy.engine.native.adapter import NativeEngine
from tests.bench.cases import peer_id
from tests.bench.certificates import CALLEE, sentry_client

_REPORT_S = 2.0
_PLAN = Plan(
    labels=Labels(direction="inbound"),
    routes=(Route(cluster="app", edits=(Edit(op=Op.HOP_BY_HOP), Edit(op=Op.TRACE))),),
)


@dataclass(frozen=True, slots=True)
class NoSpan:
    """What is sent on where nothing is traced."""

    traceparent: bytes = b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"
    grpc_trace_bin: bytes = b""


class NoTracing:
    """No call is sampled."""

    sampling = Sampling(rate=0.0)

    def from_ids(self, ids: SpanIds) -> NoSpan:
        """See Tracing."""
        return NoSpan()

    def begin(self, headers: Sequence[Header], *, grpc: bool) -> NoSpan:
        """See Tracing."""
        return NoSpan()

    def by_rule(self, span: HopSpan, number: int) -> HopSpan:
        """See Tracing."""
        return span


class Deaf:
    """An Observer of nothing but what goes wrong, which it says on standard output."""

    lines = None
    spans = None
    measures = Measures(duration_s=(1.0,), latency_ms=(1.0,), size_bytes=(1.0,))

    def counted(self, tally: Tally) -> None:
        """See Observer."""

    def traced(self, outcome: Outcome) -> None:
        """See Observer."""

    def recalled(self, outcome: Outcome) -> None:
        """See Observer."""

    def lost(self, reports: int, spans: int, news: int = 0) -> None:
        """See Observer."""

    def finished(self, outcome: Outcome) -> None:
        """See Observer."""
        sys.stdout.write(f"a call ended by itself: {outcome.cause}\n")

    def begun(self, call: CallBegun) -> None:
        """See Observer."""

    def answered(self, answer: AnswerBegun) -> None:
        """See Observer."""

    def connection(self, listener: str, change: int) -> None:
        """See Observer."""

    def refused_frames(self, kind: str, who: str = "") -> None:
        """See Observer."""
        sys.stdout.write(f"refused frames: {kind}\n")

    def refused_peer(self, listener: str, reason: str, detail: str, address: str) -> None:
        """See Observer."""
        sys.stdout.write(f"refused a peer: {reason}\n")

    def plan_cache(self, hit: bool, count: int = 1) -> None:
        """See Observer."""

    def upstream_failed(self, cluster: str, address: str, reason: str) -> None:
        """See Observer."""
        sys.stdout.write(f"no connection to {address}: {reason}\n")

    def upstream_connected(self, cluster: str, connect_s: float, tls_s: float) -> None:
        """See Observer."""

    def phased(self, labels: Labels, phases: Phases) -> None:
        """See Observer."""

    def endpoint_turned(self, turn: EndpointTurn) -> None:
        """See Observer."""

    def breaker_turned(self, turn: BreakerTurn) -> None:
        """See Observer."""


def decide(asking: RecordingHead) -> Plan:
    """All to the app."""
    return _PLAN


async def serve(runtime_path: Path, count: int, app_port: int) -> None:
    """Start them and serve until the process ends."""
    client = await sentry_client(runtime_path)
    app = Cluster(key="app", wire="h2c", tls=None, upstreams=(Upstream(address=f"127.0.0.1:{app_port}"),))
    ports: dict[str, int] = {}
    async with asyncio.TaskGroup() as tasks:
        for app_id in map(peer_id, range(count)):
            svid = await client.fetch(app_id, CALLEE.namespace, CALLEE.trust_domain)
            engine = NativeEngine(Limits(), Deaf(), NoTracing(), str, report_s=_REPORT_S)
            tasks.create_task(engine.run())
            engine.set_identity(
                TlsIdentity(
                    chain_pem=svid.chain_pem,
                    key_pem=svid.key_pem,
                    roots_pem=svid.bundle.pem,
                    ends_at=svid.not_after.timestamp(),
                    verify=peer_leaf,
                )
            )
            engine.set_cluster(app)
            spec = ListenerSpec(name="peer", address="127.0.0.1:0", decide=decide, tls="mesh")
            ports[app_id] = int((await engine.listen(spec)).rpartition(":")[2])
        sys.stdout.write(json.dumps({"peers": ports}) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Read the flags and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime-path", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--app-port", type=int, required=True)
    flags = parser.parse_args()
    uvloop.run(serve(flags.runtime_path, flags.count, flags.app_port))


if __name__ == "__main__":
    main()
