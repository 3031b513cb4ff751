"""External authorizers that a Plan names: asked once before the first attempt, and what their answers do to a call."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest
from msgspec.structs import replace

from proxy.contract.authorizing import Authorized, Granted, Unanswered
from proxy.contract.head import RequestHead
from proxy.contract.plan import Cause, Edit, Op, Plan, Reply
from tests.conformance.apps import grpc_app, http_app, raw_app
from tests.conformance.frames import dial
from tests.conformance.harness import DEADLINE_S, EDITS, LABELS, always, leading, plan, reply, retry, running
from tests.conformance.identities import Mint, spiffe
from tests.support.echo_client import EchoClient
from tests.support.http_client import connect
from tests.support.http_wire import Head, read_body, read_head
from tests.support.proto.echo_pb2 import EchoRequest
from tests.support.websocket import new_key

ASKED: Final[dict[str, Any]] = {"authorizers": ("one", "two")}
OK: Final = b"HTTP/1.1 200 OK\r\nX-Made: app\r\nContent-Length: 2\r\n\r\nok"
BUSY: Final = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
NO: Final = Reply(
    cause=Cause.DENIED,
    status=401,
    headers=(
        (b"content-type", b"text/plain"),
        (b"www-authenticate", b"Basic"),
        (b"postern-error", b"denied"),
    ),
    body=b"who are you?",
    grpc_code=16,
    grpc_message="who are you?",
    labels=replace(LABELS, decision="authorizer=one"),
)


class Authorizer:
    """Says what it is told to, at once or when it may. Not told: it says nothing."""

    def __init__(self, says: Authorized | None = None) -> None:
        self._says = says
        self.asked: list[tuple[Plan, RequestHead]] = []
        self._waits: asyncio.Queue[Callable[[Authorized], None]] = asyncio.Queue()

    def __call__(self, plan: Plan, head: RequestHead, then: Callable[[Authorized], None]) -> None:
        self.asked.append((plan, head))
        if self._says is not None:
            then(self._says)
        else:
            self._waits.put_nowait(then)

    async def question(self) -> Callable[[Authorized], None]:
        """How to answer what it has been asked and has not answered, once that is there."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._waits.get()


class App:
    """An app that remembers what it was sent, and gives these answers in turn, the last one on and on."""

    def __init__(self, *answers: bytes) -> None:
        self.heads: list[Head] = []
        self.trailers: list[tuple[str, str]] = []
        self._answers = list(answers or (OK,))

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            self.heads.append(head)
            async for _ in read_body(reader, head, self.trailers):
                pass
            writer.write(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])


def edits(*given: tuple[Op, bytes, bytes]) -> tuple[Edit, ...]:
    """Edits of an authorizer."""
    return tuple(Edit(op=op, name=name, data=data) for op, name, data in given)


@pytest.mark.parametrize("later", [False, True])
async def test_a_call_that_is_granted_goes_on_with_what_its_authorizer_changed(
    engine: str, hops: str, later: bool
) -> None:
    found = Granted(
        request=edits(
            (Op.SET, b"x-user", b"ann"), (Op.ADD, b"x-group", b"ops"), (Op.REMOVE, b"x-secret", b"")
        ),
        reply=edits((Op.ADD, b"x-seen-by", b"one"), (Op.SET, b"x-made", b"authorizer")),
    )
    authorizer, app = Authorizer(None if later else found), App()
    # What a caller may have as hop-by-hop is its own field, never the authorizer's; and apps may read `_` as `-`.
    sent = [
        ("Connection", "x-user"),
        ("X-User", "eve"),
        ("x_user", "eve"),
        ("X-Group", "a"),
        ("X-Secret", "1"),
    ]
    async with (
        raw_app(app) as port,
        leading(engine, hops, port, authorize=authorizer, **ASKED) as way,
        connect(way.port) as caller,
    ):
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(caller.request("POST", "/x?y=1", headers=sent, body=b"hello"))
            if later:
                tell = await authorizer.question()
                assert not app.heads
                tell(found)
        answer = call.result()
        outcome = await way.front.seen.outcome()
    (head,) = app.heads
    assert (head.get_all("x-user"), head.get_all("x_user")) == (["ann"], [])
    assert (head.get_all("x-group"), head.get_all("x-secret")) == (["a", "ops"], [])
    assert (
        answer.status,
        answer.get("x-seen-by"),
        [value for name, value in answer.headers if name.lower() == "x-made"],
    ) == (
        200,
        "one",
        ["authorizer"],
    )
    (asked,) = authorizer.asked
    assert (asked[0].authorizers, asked[1].path, asked[1].query) == (("one", "two"), "/x", b"y=1")
    assert (asked[1].get(b"x-secret"), outcome.cause) == (b"1", None)


async def test_trailers_bring_nothing_that_the_authorizer_set(engine: str) -> None:
    app = App()
    found = Granted(request=edits((Op.SET, b"x-user", b"ann")))
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, authorize=Authorizer(found), **ASKED) as way,
        connect(way.port) as caller,
    ):
        sent = b"1\r\na\r\n0\r\nx-user: eve\r\nx_user: eve\r\nx-sum: 1\r\n\r\n"
        await caller.send_head("POST", "/", [("Transfer-Encoding", "chunked")])
        await caller.send(sent)
        assert (await caller.read_response_head()).second == "200"
    assert [name.lower() for name, _ in app.trailers] == ["x-sum"]


async def test_an_edit_replaces_what_the_plan_sets(engine: str) -> None:
    app = App()
    route = plan().routes[0]
    routes = (replace(route, edits=(*EDITS, *edits((Op.SET, b"authorization", b"ours")))),)
    found = Granted(request=edits((Op.SET, b"authorization", b"theirs")))
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, authorize=Authorizer(found), routes=routes, **ASKED) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/")
    assert app.heads[0].get_all("authorization") == ["theirs"]


async def test_a_name_with_underscores_takes_the_callers_fields_in_either_spelling(engine: str) -> None:
    app = App()
    route = plan().routes[0]
    routes = (replace(route, edits=(*EDITS, *edits((Op.SET, b"x-scope", b"all")))),)
    found = Granted(
        request=edits(
            (Op.SET, b"x_role", b"user"), (Op.REMOVE, b"x_secret", b""), (Op.SET, b"x_scope", b"own")
        )
    )
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, authorize=Authorizer(found), routes=routes, **ASKED) as way,
        connect(way.port) as caller,
    ):
        sent = [("X-Role", "admin"), ("x_role", "admin"), ("X-Secret", "1"), ("x_secret", "1")]
        await caller.request("GET", "/", headers=sent)
    left = [(name.lower(), value) for name, value in app.heads[0].headers]
    asked = [field for field in left if field[0].replace("_", "-") in ("x-role", "x-secret", "x-scope")]
    assert sorted(asked) == [("x_role", "user"), ("x_scope", "own")]


async def test_a_call_that_is_refused_is_answered_as_its_authorizer_says(engine: str, hops: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, hops, port, authorize=Authorizer(NO), **ASKED) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("POST", "/", body=b"hello")
        outcome = await way.front.seen.outcome()
    assert (answer.status, answer.body, app.heads) == (401, b"who are you?", [])
    assert answer.get("www-authenticate") == "Basic"
    assert (outcome.cause, outcome.status, list(outcome.attempts)) == (Cause.DENIED, 401, [])
    assert outcome.labels.decision == "authorizer=one"


async def test_a_grpc_call_that_is_refused_ends_with_its_code(engine: str, hops: str) -> None:
    async with (
        grpc_app() as app,
        leading(engine, hops, app, wire="h2c", authorize=Authorizer(NO), **ASKED) as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EchoClient(channel).unary(EchoRequest(message="hi"))
        outcome = await way.front.seen.outcome()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    told: Any = (*(caught.value.initial_metadata() or ()), *(caught.value.trailing_metadata() or ()))
    assert [value for name, value in told if name == "www-authenticate"] == ["Basic"]
    assert [value for name, value in told if name == "postern-error"] == ["denied"]
    assert (outcome.grpc_code, outcome.cause) == (16, Cause.DENIED)


async def test_where_nobody_could_say_the_call_ends_as_that(engine: str, hops: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, hops, port, authorize=Authorizer(Unanswered("it is gone")), **ASKED) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert (answer.status, answer.get("postern-error"), app.heads) == (503, "authorizer", [])
    assert b"authorizer: it is gone" in answer.body
    assert (outcome.cause, list(outcome.attempts)) == (Cause.AUTHORIZER, [])


async def test_a_listener_without_authorizers_lets_nothing_pass_that_needs_one(engine: str) -> None:
    async with (
        http_app() as port,
        leading(engine, "one", port, **ASKED) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
    assert (answer.status, answer.get("postern-error")) == (503, "authorizer")


async def test_attempts_that_follow_are_not_asked_about_and_keep_the_edits(engine: str) -> None:
    authorizer, app = Authorizer(Granted(request=edits((Op.SET, b"x-user", b"ann")))), App(BUSY, BUSY, OK)
    rules = (retry(3, Cause.STATUS, http_codes=None),)
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, authorize=authorizer, retries=rules, **ASKED) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
    assert (answer.status, len(authorizer.asked)) == (200, 1)
    assert [head.get_all("x-user") for head in app.heads] == [["ann"]] * 3


async def test_what_one_call_was_granted_is_no_other_calls(engine: str) -> None:
    app, users = App(), iter((b"ann", b"bob"))

    def authorize(_: Plan, __: RequestHead, then: Callable[[Authorized], None]) -> None:
        then(Granted(request=edits((Op.SET, b"x-user", next(users)))))

    async with (
        raw_app(app) as port,
        leading(engine, "one", port, authorize=authorize, **ASKED) as way,
        connect(way.port) as caller,
    ):
        for _ in range(2):
            await caller.request("GET", "/")
        assert way.front.seen.cache == [False, True]
    assert [head.get_all("x-user") for head in app.heads] == [["ann"], ["bob"]]


async def test_a_caller_that_leaves_while_it_is_asked_about_costs_nothing_more(engine: str) -> None:
    authorizer, app = Authorizer(), App()
    async with raw_app(app) as port, leading(engine, "one", port, authorize=authorizer, **ASKED) as way:
        async with dial(way.port) as caller:
            await caller.request(b"/")
            tell = await authorizer.question()
        outcome = await way.front.seen.outcome()
        tell(Granted())  # nobody waits for it
        async with connect(way.port) as other:
            await other.send_head("GET", "/", [])
            tell = await authorizer.question()
            tell(Granted())
            assert (await other.read_response_head()).second == "200"
    assert (outcome.cause, list(outcome.attempts), len(app.heads)) == (Cause.CALLER_LEFT, [], 1)


async def test_the_calls_deadline_ends_the_wait(engine: str) -> None:
    app = App()
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, authorize=Authorizer(), total_s=0.2, **ASKED) as way,
        connect(way.port) as caller,
    ):
        answer = await caller.request("GET", "/")
        outcome = await way.front.seen.outcome()
    assert (answer.status, outcome.cause, app.heads) == (504, Cause.TIMEOUT, [])


async def test_a_new_policy_that_denies_ends_the_wait(engine: str) -> None:
    authorizer, app = Authorizer(), App()
    decisions: list[Plan | Reply] = [plan(scopes=("access",), **ASKED), reply(Cause.DENIED)]
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, authorize=authorizer, decide=lambda _: decisions[0]) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("GET", "/", [])
        tell = await authorizer.question()
        decisions.pop(0)
        way.front.engine.invalidate("access")
        way.front.engine.redecide_open()
        head = await caller.read_response_head()
        tell(Granted())
        outcome = await way.front.seen.outcome()
    assert (head.second, outcome.cause, app.heads) == ("403", Cause.DENIED, [])


async def test_the_gates_of_the_call_come_first(engine: str) -> None:
    authorizer = Authorizer()
    async with (
        http_app() as port,
        leading(engine, "one", port, authorize=authorizer, gates=("g",), **ASKED) as way,
        connect(way.port) as caller,
    ):
        way.front.gate("g", 1)
        await caller.send_head("GET", "/", [])
        tell = await authorizer.question()
        assert way.front.engine.stats().gates["g"].inside == 1
        tell(NO)
        assert (await caller.read_response_head()).second == "401"
        await way.front.seen.outcome()
        assert way.front.engine.stats().gates["g"].inside == 0


@pytest.mark.parametrize("granted", [True, False])
async def test_a_websocket_is_asked_about_at_its_head(engine: str, hops: str, granted: bool) -> None:
    authorizer = Authorizer(Granted() if granted else NO)
    async with (
        http_app() as app,
        leading(engine, hops, app, authorize=authorizer, **ASKED) as way,
        connect(way.port) as caller,
    ):
        handshake = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
        await caller.send_head("GET", "/ws", [*handshake, ("Sec-WebSocket-Key", new_key())])
        head = await caller.read_response_head()
    assert (head.second, len(authorizer.asked)) == ("101" if granted else "401", 1)
    assert authorizer.asked[0][1].protocol == "websocket"


async def test_a_stream_is_asked_about_before_its_first_message(engine: str, hops: str) -> None:
    authorizer = Authorizer(Granted(reply=edits((Op.ADD, b"x-seen-by", b"one"))))
    async with (
        grpc_app() as app,
        leading(engine, hops, app, wire="h2c", authorize=authorizer, **ASKED) as way,
        grpc.aio.insecure_channel(f"127.0.0.1:{way.port}") as channel,
    ):
        call = EchoClient(channel).bidi()
        for number in range(3):
            await call.write(EchoRequest(message=str(number)))
            assert (await call.read()).message == str(number)
        await call.done_writing()
        assert ("x-seen-by", "one") in list(await call.initial_metadata())
    assert len(authorizer.asked) == 1


async def test_a_callee_whose_authorizer_is_gone_is_not_held_to_have_failed(engine: str) -> None:
    """Its caller hears that the app was not reached, and goes on calling it: nothing is ejected."""
    mint, app = Mint(), App()
    says: list[Authorized] = [*[Unanswered("it is gone")] * 3, Granted()]

    def authorize(_: Plan, __: RequestHead, then: Callable[[Authorized], None]) -> None:
        then(says.pop(0))

    async with raw_app(app) as port, running(engine) as back, running(engine) as front:
        back.engine.set_identity(mint.identity("callee"))
        back.cluster("app", port)
        peer = await back.listen(always(plan(**ASKED)), name="peer", tls="mesh", authorize=authorize)
        front.engine.set_identity(mint.identity("caller"))
        front.cluster("app", peer, wire="postern", tls="mesh")
        way = await front.listen(always(plan(expect=frozenset({spiffe("callee")}))))
        async with connect(way) as caller:
            statuses = [(await caller.request("GET", "/")).status for _ in range(4)]
        first = await front.seen.outcome()
        (load,) = front.engine.loads("app")
    assert (statuses, len(app.heads)) == ([503, 503, 503, 200], 1)
    assert (first.attempts[0].said, load["ejectedForS"]) == (Cause.AUTHORIZER, 0.0)


async def test_wait_for_an_authorizer_is_a_phase_of_its_own(engine: str) -> None:
    authorizer = Authorizer()
    async with (
        raw_app(App()) as port,
        leading(engine, "one", port, authorize=authorizer, **ASKED) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("GET", "/", [])
        (await authorizer.question())(Granted())
        assert (await caller.read_response("GET")).status == 200
        outcome = await way.front.seen.outcome()
        await way.front.seen.until(lambda: bool(way.front.seen.phases))
        (phases,) = way.front.seen.phases
    assert 0 < outcome.authorize_ns <= outcome.ended_ns - outcome.started_ns
    assert phases.authorize == pytest.approx(outcome.authorize_ns / 1e9)
    assert outcome.queue_ns == 0


async def test_wait_for_an_authorizer_that_never_answers_counts_to_the_calls_end(engine: str) -> None:
    authorizer = Authorizer()
    async with (
        raw_app(App()) as port,
        leading(engine, "one", port, authorize=authorizer, total_s=0.2, **ASKED) as way,
        connect(way.port) as caller,
    ):
        assert (await caller.request("GET", "/")).status == 504
        outcome = await way.front.seen.outcome()
    assert outcome.authorize_ns > 0
    assert outcome.attempts == []
