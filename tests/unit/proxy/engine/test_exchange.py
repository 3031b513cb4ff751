"""One call between a downstream end and upstream connections, both of them fakes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.contract.engine import Cluster, Limits, ListenerSpec, Upstream
from proxy.contract.gates import ConcurrencyGate
from proxy.contract.head import Headers
from proxy.contract.outcome import Outcome
from proxy.contract.plan import Cause, Plan
from proxy.engine.portable.carrier import Carrier
from proxy.engine.portable.exchange import Exchange
from proxy.engine.portable.pool import Origin, Waiter
from proxy.wire.streams import RawHead, ResponseEvents
from tests.conformance.harness import FixedTracing, Recorder, always, plan, retry
from tests.fakes import translating

GRPC: Headers = ((b"content-type", b"application/grpc"),)


@dataclass
class Down:
    """The caller's end: what it was told."""

    status: int = 0
    headers: Headers = ()
    body: bytes = b""
    trailers: Headers | None = None
    aborted: Cause | None = None
    acked: int = 0
    informed: list[int] = field(default_factory=list)

    def inform(self, status: int, headers: Headers) -> None:
        self.informed.append(status)

    def respond(self, status: int, headers: Headers, *, end: bool) -> None:
        assert not self.status
        self.status, self.headers = status, headers
        self.trailers = () if end else None

    def send(self, data: bytes) -> None:
        self.body += data

    def finish(self, trailers: Headers) -> None:
        self.trailers = trailers

    def abort(self, cause: Cause) -> None:
        self.aborted = cause

    def ack(self, count: int) -> None:
        self.acked += count


@dataclass(kw_only=True)
class Up(translating.Up):
    """The callee's end of one attempt."""

    events: ResponseEvents
    address: str


class Pool:
    """Gives a connection at once, or keeps the waiter where the address is in `slow`. `opened` is set by each attempt."""

    size = 0

    def __init__(self) -> None:
        self.attempts: list[Up] = []
        self.opened = asyncio.Event()
        self.slow: set[str] = set()
        self.waiters: list[tuple[str, Waiter]] = []

    def take(self, origin: Origin) -> Any:
        return None if origin.address in self.slow else self.connection(origin.address)

    def connection(self, address: str) -> Any:
        pool = self

        class Connection:
            alpn = "h2"
            has_extended_connect = True
            in_flight = 0
            capacity = 1

            def open(self, events: ResponseEvents) -> Up:
                pool.attempts.append(Up(events=events, address=address))
                pool.opened.set()
                return pool.attempts[-1]

        return Connection()

    def wait(self, origin: Origin, waiter: Waiter) -> Callable[[], None]:
        self.waiters.append((origin.address, waiter))

        def cancel() -> None:
            waiter.cancelled = True

        return cancel


class Bench:
    """A carrier over fakes."""

    def __init__(self, made: Plan, *addresses: str) -> None:
        self.seen = Recorder()
        self.carrier = Carrier(
            Limits(), self.seen, FixedTracing(), lambda key: f"looked for {key}", lambda _: None
        )
        self.pool = Pool()
        self.carrier.pool = self.pool  # type: ignore[assignment]
        upstreams = tuple(Upstream(address=address) for address in addresses or ("1.1.1.1:1",))
        self.carrier.clusters.put(Cluster(key="app", wire="h2c", tls=None, upstreams=upstreams))
        self.listener = ListenerSpec(name="in", address="", decide=always(made))

    def call(self, head: RawHead) -> tuple[Exchange, Down]:
        """A call begins."""
        down = Down()
        exchange = self.carrier.acceptor(self.listener, None, "")(down, head)
        assert isinstance(exchange, Exchange)
        return exchange, down

    @property
    def up(self) -> Up:
        """The newest attempt."""
        return self.pool.attempts[-1]

    @property
    def outcome(self) -> Outcome:
        """The one outcome."""
        (outcome,) = self.seen.outcomes
        return outcome


def get() -> RawHead:
    """A request without a body."""
    return RawHead("http2", b"GET", b"a", b"/", (), "none", 0)


def post(headers: Headers = (), *, grpc: bool = False) -> RawHead:
    """A request with a body."""
    return RawHead("grpc" if grpc else "http2", b"POST", b"a", b"/", headers, "stream", None)


async def test_bodiless_request_is_begun_as_ended() -> None:
    bench = Bench(plan())
    exchange, down = bench.call(get())
    exchange.request_end(())
    assert bench.up.ended
    bench.up.events.response_head(204, (), end=True)
    assert (down.status, bench.outcome.cause, bench.up.aborted) == (204, None, False)


async def test_body_flows_with_credit_both_ways() -> None:
    bench = Bench(plan())
    exchange, down = bench.call(post())
    exchange.request_data(b"up")
    assert (bench.up.body, down.acked) == (b"up", 0)
    bench.up.events.request_drained(2)
    assert down.acked == 2
    exchange.request_end(())
    bench.up.events.response_head(200, (), end=False)
    bench.up.events.response_data(b"down")
    exchange.response_drained(4)
    assert bench.up.acked == 4
    bench.up.events.response_end(((b"t", b"1"),))
    assert (down.body, down.trailers) == (b"down", ((b"t", b"1"),))
    assert (bench.outcome.up_bytes, bench.outcome.down_bytes) == (2, 4)


async def test_replayed_body_is_acked_to_the_caller_once() -> None:
    bench = Bench(plan(retries=(retry(2, http_codes=frozenset({503})),)), "a", "b")
    exchange, down = bench.call(post())
    exchange.request_data(b"12345")
    first = bench.up
    first.events.request_drained(5)
    first.events.response_head(503, (), end=False)
    assert first.aborted
    assert bench.up is not first
    assert bench.up.body == b"12345"
    bench.up.events.request_drained(5)
    exchange.request_data(b"67")
    bench.up.events.request_drained(2)
    assert down.acked == 7


async def test_body_beyond_replay_bytes_is_never_sent_twice() -> None:
    bench = Bench(plan(replay_bytes=4, retries=(retry(5, Cause.RESET_EARLY),)), "a", "b")
    exchange, down = bench.call(post())
    exchange.request_data(b"12345")
    bench.up.events.response_lost(Cause.RESET_EARLY, "gone")
    assert (len(bench.pool.attempts), down.status) == (1, 502)


async def test_refused_call_goes_to_the_other_endpoint_at_once_without_a_rule() -> None:
    bench = Bench(plan(), "a", "b")
    _, down = bench.call(get())
    bench.up.events.response_lost(Cause.REFUSED, "goaway")
    bench.up.events.response_head(200, (), end=True)
    assert down.status == 200
    assert {up.address for up in bench.pool.attempts} == {"a", "b"}


async def test_refused_everywhere_is_the_answer_for_refused() -> None:
    bench = Bench(plan(), "a", "b")
    _, down = bench.call(get())
    for _ in range(2):
        bench.up.events.response_lost(Cause.REFUSED, "goaway")
    assert (down.status, bench.outcome.cause, len(bench.outcome.attempts)) == (503, Cause.REFUSED, 2)


async def test_loss_after_the_head_aborts_the_caller() -> None:
    bench = Bench(plan(retries=(retry(5, Cause.RESET_LATE),)), "a", "b")
    _, down = bench.call(get())
    bench.up.events.response_head(200, (), end=False)
    bench.up.events.response_lost(Cause.RESET_LATE, "gone")
    assert (down.aborted, down.trailers, len(bench.pool.attempts)) == (Cause.RESET_LATE, None, 1)


async def test_grpc_head_is_held_until_its_status_cannot_be_retried() -> None:
    bench = Bench(plan(retries=(retry(2, grpc_codes=frozenset({14})),)), "a", "b")
    exchange, down = bench.call(post(GRPC, grpc=True))
    exchange.request_data(b"m")
    exchange.request_end(())
    bench.up.events.response_head(200, GRPC, end=False)
    assert down.status == 0
    bench.up.events.response_end(((b"grpc-status", b"14"),))
    bench.up.events.response_head(200, GRPC, end=False)
    bench.up.events.response_data(b"r")
    assert (down.status, down.body) == (200, b"r")
    bench.up.events.response_end(((b"grpc-status", b"14"),))
    assert (down.trailers, len(bench.pool.attempts)) == (((b"grpc-status", b"14"),), 2)


async def test_early_answer_cancels_the_rest_of_the_request() -> None:
    bench = Bench(plan())
    _, down = bench.call(post())
    bench.up.events.response_head(413, (), end=True)
    assert (down.status, bench.up.aborted, bench.outcome.cause) == (413, True, None)


async def test_body_after_the_answer_is_swallowed_with_credit() -> None:
    bench = Bench(plan())
    exchange, down = bench.call(post())
    bench.up.events.response_head(413, (), end=True)
    exchange.request_data(b"late")
    exchange.request_end(())
    assert down.acked == 4


async def test_caller_that_leaves_aborts_the_attempt_once() -> None:
    bench = Bench(plan())
    exchange, down = bench.call(post())
    exchange.request_gone("hung up")
    exchange.request_gone("hung up")
    assert (bench.up.aborted, bench.outcome.cause, down.status) == (True, Cause.CALLER_LEFT, 0)
    bench.up.events.response_head(200, (), end=True)
    assert down.status == 0


async def test_caller_that_leaves_while_dialling_cancels_the_wait() -> None:
    bench = Bench(plan(), "a")
    bench.pool.slow.add("a")
    exchange, _ = bench.call(get())
    exchange.request_gone("hung up")
    assert bench.pool.waiters[0][1].cancelled
    assert not bench.pool.attempts


async def test_failed_dial_ejects_and_tries_the_other_endpoint() -> None:
    bench = Bench(plan(), "a", "b")
    bench.pool.slow = {"a", "b"}
    _, down = bench.call(get())
    address, waiter = bench.pool.waiters[0]
    waiter.failed(Cause.CONNECT, "refused")
    other, second = bench.pool.waiters[1]
    assert {address, other} == {"a", "b"}
    second.ready(bench.pool.connection(other))
    bench.up.events.response_head(200, (), end=True)
    state = bench.carrier.clusters.get("app")
    assert state is not None
    load = state.load(address)
    assert load is not None
    assert load.ejected_until > 0
    assert down.status == 200


async def test_body_before_a_connection_is_sent_when_it_is_there() -> None:
    bench = Bench(plan(), "a")
    bench.pool.slow = {"a"}
    exchange, down = bench.call(post())
    exchange.request_data(b"early")
    exchange.request_end(())
    assert down.acked == 0  # no credit for what is only kept
    bench.pool.waiters[0][1].ready(bench.pool.connection("a"))
    assert (bench.up.body, bench.up.ended) == (b"early", True)


async def test_informational_answer_goes_through_until_the_real_one() -> None:
    bench = Bench(plan())
    _, down = bench.call(get())
    bench.up.events.response_inform(103, ())
    bench.up.events.response_head(200, (), end=True)
    assert down.informed == [103]


async def test_cut_ends_a_call_visibly() -> None:
    bench = Bench(plan())
    exchange, down = bench.call(get())
    exchange.cut()
    exchange.cut()
    assert (down.aborted, bench.up.aborted, bench.outcome.cause) == (Cause.DRAINING, True, Cause.DRAINING)


async def test_every_end_leaves_load_and_gate_as_they_were() -> None:
    bench = Bench(plan(gates=("g",)), "a")
    bench.carrier.gates.set("g", ConcurrencyGate(limit=1))
    ends: list[Callable[[Exchange, Up], None]] = [
        lambda _, up: up.events.response_head(200, (), end=True),
        lambda _, up: up.events.response_lost(Cause.RESET_EARLY, ""),
        lambda exchange, _: exchange.request_gone(""),
        lambda exchange, _: exchange.cut(),
    ]
    for end in ends:
        exchange, _ = bench.call(get())
        end(exchange, bench.up)
    state = bench.carrier.clusters.get("app")
    gate = bench.carrier.gates.get("g")
    assert state is not None
    assert gate is not None
    assert ([load.in_flight for load in state.loads()], gate.state().inside) == ([0], 0)
    assert not bench.carrier.calls["in"]
