"""Circuit breakers in both engines: what opens them, whom they refuse, who probes, and which attempts are one to them.

What they make of time and counters by themselves is in `tests/vectors/breakers.json`.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from policies.reading.trip import compile_trip
from proxy.contract.breakers import BreakerGlance, BreakerSpec, BreakerTurn, BreakerUse, Counts
from proxy.contract.plan import Cause, Decision
from proxy.contract.recording import RecordingHead
from tests.conformance.apps import raw_app
from tests.conformance.frames import FramePeer, Message, dial, reset, serving
from tests.conformance.harness import DEADLINE_S, Node, Way, leading, plan, retry
from tests.support.http_client import connect
from tests.support.http_wire import read_head
from tests.support.ports import free_port
from tests.support.websocket import accept_key, new_key

USE = BreakerUse(name="app", target="app")
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
OPEN_S = 0.2


def a_spec(
    trip: str = "consecutiveFailures >= 3",
    *,
    open_s: float = 3600.0,
    max_requests: int = 1,
    methods: int = 100,
) -> BreakerSpec:
    return BreakerSpec(
        policy="guard",
        max_requests=max_requests,
        interval_s=0.0,
        timeout_s=open_s,
        trip=compile_trip(trip),
        methods=methods,
    )


@dataclass
class App:
    """Answers each path with its next status, the last one for good: 0 hangs up. Those of `held` wait for `go`."""

    statuses: dict[str, list[int]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: Counter[str] = field(default_factory=Counter)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            path = head.second.partition("?")[0]
            self.asked[path] += 1
            if path in self.held:
                await self.go.wait()
            statuses = self.statuses.get(path, [200])
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            if not status:
                return
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)


async def get(caller: FramePeer, *paths: bytes) -> list[tuple[int, bytes]]:
    """Status and `postern-error` of calls one after the other."""
    found = []
    for path in paths:
        answer = await caller.whole(await caller.request(path))
        found.append((answer.status, answer.get(b"postern-error")))
    return found


def states(node: Node) -> dict[str, str]:
    return {glance.method: glance.state for glance in node.engine.breakers()}


async def until(node: Node, method: str, state: str) -> None:
    """Until a breaker is found in a state, which no timer tells of."""
    async with asyncio.timeout(DEADLINE_S):
        while states(node).get(method) != state:  # noqa: ASYNC110 - nobody is told until somebody looks
            await asyncio.sleep(0.001)


async def finished(way: Way, count: int) -> None:
    await way.front.seen.until(lambda: len(way.front.seen.outcomes) == count)


REFUSED = (503, b"breaker-open")


async def test_third_failure_opens_the_breaker_of_its_method_alone(engine: str) -> None:
    app = App({"/a": [500, 404, 0, 200]})
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec())
        found = await get(caller, b"/a?x=1", b"/a?y", b"/a", b"/a", b"/b", b"/a")
        await finished(way, 6)
        outcomes = way.front.seen.outcomes
        glances = way.front.engine.breakers()
    assert found == [(500, b""), (404, b""), (502, b"reset-early"), REFUSED, (200, b""), REFUSED]
    assert app.asked == {"/a": 3, "/b": 1}
    assert [outcome.breaker for outcome in outcomes] == [
        ("closed", "closed"),
        ("closed", "closed"),
        ("closed", "open"),
        ("open", "open"),
        ("closed", "closed"),
        ("open", "open"),
    ]
    assert (outcomes[3].cause, outcomes[3].attempts) == (Cause.BREAKER, [])
    assert way.front.seen.turns == [BreakerTurn("app", "app", "/a", "closed", "open", Counts(3, 0, 3, 0, 3))]
    (opened,) = (glance for glance in glances if glance.method == "/a")
    assert opened[:5] == ("app", "app", "/a", "open", Counts())
    assert 3590 < opened.left_s <= 3600
    assert BreakerGlance("app", "app", "/b", "closed", Counts(1, 1, 0, 1, 0), 0.0) in glances


async def test_breaker_that_was_never_set_lets_everything_through(engine: str) -> None:
    app = App({"/": [500]})
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        assert await get(caller, *[b"/"] * 10) == [(500, b"")] * 10
        await finished(way, 10)
        assert not way.front.engine.breakers()
        assert {outcome.breaker for outcome in way.front.seen.outcomes} == {None}


async def test_probe_that_goes_well_closes_it(engine: str) -> None:
    app = App({"/": [500, 500, 500, 200]})
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec(open_s=OPEN_S))
        await get(caller, b"/", b"/", b"/")
        await until(way.front, "/", "half-open")
        assert await get(caller, b"/", b"/") == [(200, b"")] * 2
        await finished(way, 5)
        assert [outcome.breaker for outcome in way.front.seen.outcomes[3:]] == [
            ("half-open", "closed"),
            ("closed", "closed"),
        ]
        assert [turn[3:] for turn in way.front.seen.turns] == [
            ("closed", "open", Counts(3, 0, 3, 0, 3)),
            ("open", "half-open", Counts()),
            ("half-open", "closed", Counts(1, 1, 0, 1, 0)),
        ]


async def test_half_open_so_many_probe_and_the_others_are_refused(engine: str) -> None:
    app = App({"/": [500, 200]}, held=frozenset({"/"}))
    app.go.set()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("true", open_s=OPEN_S, max_requests=2))
        await get(caller, b"/")
        await until(way.front, "/", "half-open")
        app.go.clear()
        streams = [await caller.request() for _ in range(5)]
        await finished(way, 4)
        app.go.set()
        found: list[Message] = [await caller.whole(stream) for stream in streams]
        assert sorted((one.status, one.get(b"postern-error")) for one in found) == [
            (200, b""),
            (200, b""),
            *[(503, b"breaker-probing")] * 3,
        ]
        assert states(way.front) == {"/": "closed"}
        assert app.asked["/"] == 3


async def test_breaker_that_opens_within_the_retries_ends_them(engine: str) -> None:
    app = App({"/": [500]})
    rules = (retry(9, http_codes=None),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE, retries=rules) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec())
        assert await get(caller, b"/") == [REFUSED]
        outcome = await way.front.seen.outcome()
    assert (app.asked["/"], len(outcome.attempts), outcome.breaker) == (3, 3, ("closed", "open"))


async def test_attempts_of_an_inner_rule_are_one_to_the_breaker(engine: str) -> None:
    app = App({"/": [0]})
    rules = (retry(4, Cause.RESET_EARLY, is_inner=True),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE, retries=rules) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("consecutiveFailures >= 2"))
        found = await get(caller, b"/", b"/", b"/")
        await finished(way, 3)
        turns = way.front.seen.turns
    assert found == [(502, b"reset-early")] * 2 + [REFUSED]
    assert (app.asked["/"], [turn.counts.requests for turn in turns]) == (8, [2])


async def test_endpoint_that_another_answers_for_is_no_failure(engine: str) -> None:
    app, gone = App(), free_port()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("totalFailures > 0"))
        way.front.cluster("app", gone, port)
        found = await get(caller, *[b"/"] * 8)
        await finished(way, 8)
    assert found == [(200, b"")] * 8
    assert max(len(outcome.attempts) for outcome in way.front.seen.outcomes) == 2


async def test_state_outlives_an_equal_spec_and_no_other(engine: str) -> None:
    app = App({"/": [500]})
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        node = way.front.engine
        node.set_breaker("app", a_spec())
        await get(caller, b"/", b"/", b"/")
        node.set_breaker("app", a_spec())
        node.set_breaker("other", a_spec())
        assert await get(caller, b"/") == [REFUSED]
        node.set_breaker("app", a_spec("consecutiveFailures >= 4"))
        assert await get(caller, b"/") == [(500, b"")]
        node.set_breaker("app", None)
        assert await get(caller, *[b"/"] * 5) == [(500, b"")] * 5
        assert not node.breakers()


async def test_method_used_longest_ago_is_forgotten(engine: str) -> None:
    app = App({"/1": [500]})
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("true", methods=1))
        assert await get(caller, b"/1", b"/1", b"/2", b"/1") == [(500, b""), REFUSED, (200, b""), (500, b"")]
        assert app.asked == {"/1": 2, "/2": 1}


async def test_one_kept_plan_asks_by_the_path_of_each_call(engine: str) -> None:
    use = BreakerUse(name="app", target="app", form="method")

    def decide(head: RecordingHead) -> Decision:
        return plan(
            breaker=use if head.method() == "GET" else BreakerUse(name="app", target="app", method="one")
        )

    app = App({"/v1.0/invoke/app/method/a": [500], "/v1.0//invoke/app/method//a": [500]})
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, decide=decide) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("consecutiveFailures >= 2"))
        paths = (b"/v1.0/invoke/app/method/a", b"/v1.0//invoke/app/method//a", b"/v1.0/invoke/app/method/b")
        found = await get(caller, *paths, b"/a")
        await caller.whole(await caller.request(b"/any", method=b"PUT"))
        assert found == [(500, b""), (500, b""), (200, b""), REFUSED]
        assert states(way.front) == {"/a": "open", "/b": "closed", "one": "closed"}
        assert way.front.engine.stats().plans_kept == 2


async def test_timeout_is_a_failure_and_so_is_a_caller_that_left(engine: str) -> None:
    app = App(held=frozenset({"/slow", "/left"}))
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE, attempt_s=0.2) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("true"))
        assert await get(caller, b"/slow", b"/slow") == [(504, b"timeout"), REFUSED]
        async with dial(way.port) as leaver:
            await leaver.request(b"/left")
            await until(way.front, "/left", "closed")
        await until(way.front, "/left", "open")
        app.go.set()


async def test_call_that_its_caller_gave_up_counts_before_the_next_one(engine: str) -> None:
    """As clients of gRPC do it, whose deadline passes before ours."""
    app = App(held=frozenset({"/slow"}))
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, breaker=USE) as way,
        dial(way.port) as caller,
    ):
        pseudo = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app"))
        for number in range(20):
            path = b"/slow?%d" % number
            way.front.engine.set_breaker("app", a_spec("true"))
            slow = await caller.request(path)
            await until(way.front, "/slow", "closed")
            following = caller.new_stream()
            await caller.send(reset(slow), caller.head(following, (*pseudo, (b":path", path)), end=True))
            answer = await caller.whole(following)
            assert (answer.status, answer.get(b"postern-error")) == REFUSED
            way.front.engine.set_breaker("app", None)
        app.go.set()
    assert app.asked["/slow"] <= 20


async def test_websocket_that_was_opened_is_a_success_and_one_that_was_refused_is_none(engine: str) -> None:
    opened = (
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
    )
    answers = [opened, b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"]

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        assert head is not None
        accept = accept_key(head.get("sec-websocket-key")).encode()
        writer.write(answers.pop(0).replace(b"%s", accept))
        await reader.read()

    asked = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", new_key()),
        ("sec-websocket-version", "13"),
    ]
    use = BreakerUse(name="app", target="app", is_opening=True)
    async with raw_app(app) as port, leading(engine, "one", port, breaker=use) as way:
        way.front.engine.set_breaker("app", a_spec("true"))
        for status, counts in (("101", Counts(1, 1, 0, 1, 0)), ("503", Counts())):
            async with connect(way.port) as connection:
                await connection.send_head("GET", "/", asked)
                assert (await connection.read_response_head()).second == status
                (glance,) = way.front.engine.breakers()
                assert glance.counts == counts
        assert states(way.front) == {"/": "open"}


def grpc_app(*codes: bytes) -> tuple[list[bytes], Callable[[FramePeer], Awaitable[None]]]:
    """What was asked for, and a server that ends each call with the next status, in trailers."""
    asked: list[bytes] = []
    left = list(codes)

    async def serve(peer: FramePeer) -> None:
        while True:
            stream = await peer.next_request()
            asked.append((await peer.whole(stream)).get(b":path"))
            code = left.pop(0) if len(left) > 1 else left[0]
            await peer.respond(stream, headers=GRPC[:1], trailers=((b"grpc-status", code),))

    return asked, serve


async def call(caller: FramePeer, *paths: bytes) -> list[tuple[bytes, bytes]]:
    """`grpc-status` and `postern-error` of calls one after the other."""
    found = []
    for path in paths:
        answer = await caller.whole(await caller.request(path, method=b"POST", headers=GRPC, body=b""))
        fields = dict([*answer.headers, *answer.trailers])
        found.append((fields[b"grpc-status"], fields.get(b"postern-error", b"")))
    return found


async def test_any_status_of_grpc_but_ok_is_a_failure_of_its_method(engine: str) -> None:
    asked, serve = grpc_app(b"5", b"5", b"5")
    async with (
        serving(serve) as port,
        leading(engine, "one", port, wire="h2c", breaker=USE) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("consecutiveFailures >= 2"))
        found = await call(caller, b"/a.B/C", b"/a.B/C", b"/a.B/C", b"/a.B/D")
        assert found == [(b"5", b""), (b"5", b""), (b"14", b"breaker-open"), (b"5", b"")]
        assert len(asked) == 3


async def test_of_an_opening_the_end_does_not_count(engine: str) -> None:
    _, serve = grpc_app(b"13")
    use = BreakerUse(name="app", target="app", is_opening=True)
    async with (
        serving(serve) as port,
        leading(engine, "one", port, wire="h2c", breaker=use) as way,
        dial(way.port) as caller,
    ):
        way.front.engine.set_breaker("app", a_spec("true"))
        assert await call(caller, *[b"/a.B/C"] * 3) == [(b"13", b"")] * 3
        (glance,) = way.front.engine.breakers()
        assert glance.counts == Counts(3, 3, 0, 3, 0)
        way.front.engine.drop_cluster("app")
        assert (await call(caller, b"/a.B/C", b"/a.B/C"))[1][1] == b"breaker-open"
