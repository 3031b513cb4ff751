"""Plans that are kept: for which calls they stand, and until when."""

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from policies.rules.access import AccessRules, CallerRules, Rule
from policies.rules.caller import Caller
from policies.rules.matcher import path_table
from proxy.contract.plan import Cause, Decision, Edit, Op, Route
from proxy.contract.recording import RecordingHead
from proxy.deciding.authorizer import AccessPaths
from sentry.spiffe import SpiffeId
from tests.conformance.apps import http_app, raw_app
from tests.conformance.frames import Message, dial
from tests.conformance.harness import leading, plan, reply, running
from tests.conformance.identities import DOMAIN, Mint
from tests.support.http_client import connect
from tests.support.http_wire import read_head


class FirstSegment:
    """A path table: the first segment is the class."""

    def classify(self, path: str) -> str:
        """See Table."""
        return path.split("/")[1]


async def test_plan_is_kept_for_equal_answers_and_made_anew_for_others(engine: str) -> None:
    def decide(head: RecordingHead) -> Decision:
        return plan() if head.method() == "GET" else reply(Cause.DENIED)

    async with http_app() as app, leading(engine, "one", app, decide=decide) as way:
        async with connect(way.port) as caller:
            statuses = [(await caller.request("GET", f"/echo/{n}")).status for n in range(3)]
            statuses += [(await caller.request("POST", "/echo", body=b"")).status for _ in range(2)]
        seen = way.front.seen
        assert way.front.engine.stats().plans_kept == 2
    assert statuses == [200, 200, 200, 403, 403]
    assert seen.cache == [False, True, True, False, True]


async def test_decision_on_a_value_that_is_no_key_is_for_one_call_alone(engine: str) -> None:
    def decide(head: RecordingHead) -> Decision:
        if head.method() == "GET" and head.whole().query == b"no":
            return reply(Cause.DENIED)
        return plan()

    async with http_app() as app, leading(engine, "one", app, decide=decide) as way:
        async with connect(way.port) as caller:
            targets = ["/echo?no", "/echo?yes", "/echo?no", "/echo?yes"]
            statuses = [(await caller.request("GET", target)).status for target in targets]
            statuses += [(await caller.request("POST", "/echo?no", body=b"")).status for _ in range(2)]
        assert way.front.engine.stats().plans_kept == 1
        assert way.front.seen.cache == [False] * 5 + [True]
    assert statuses == [403, 200, 403, 200, 200, 200]


@pytest.mark.parametrize(("keep_decisions", "asked"), [(True, 2), (False, 6)])
async def test_decider_is_asked_about_every_call_where_no_decision_is_kept(
    engine: str, keep_decisions: bool, asked: int
) -> None:
    heads = []

    def decide(head: RecordingHead) -> Decision:
        heads.append(head.method())
        return plan() if heads[-1] == "GET" else reply(Cause.DENIED)

    async with http_app() as app, running(engine, keep_decisions=keep_decisions) as node:
        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            statuses = [(await caller.request(verb, "/echo")).status for verb in ["GET", "POST"] * 3]
        kept = node.engine.stats().plans_kept
    assert statuses == [200, 403] * 3
    assert len(heads) == asked
    assert kept == (2 if keep_decisions else 0)


async def test_path_counts_as_its_class(engine: str) -> None:
    def decide(head: RecordingHead) -> Decision:
        return plan() if head.path_class(7) == "open" else reply(Cause.DENIED)

    async with http_app() as app, running(engine) as node:
        node.engine.set_paths(7, FirstSegment())
        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            statuses = [
                (await caller.request("GET", t)).status for t in ("/open/1", "/open/2", "/shut/1", "/shut/2")
            ]
    assert statuses == [200, 200, 403, 403]
    assert node.seen.cache == [False, True, False, True]


async def test_header_counts_as_membership_in_a_set(engine: str) -> None:
    def decide(head: RecordingHead) -> Decision:
        return plan() if head.header_is(b"x-token", 3) else reply(Cause.UNAUTHENTICATED)

    async with http_app() as app, running(engine) as node:
        node.engine.set_members(3, frozenset({b"secret"}))
        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            statuses = [
                (await caller.request("GET", "/", headers=[("X-Token", token)])).status
                for token in ("secret", "guess1", "guess2", "secret")
            ]
    assert statuses == [200, 401, 401, 200]
    assert node.seen.cache == [False, False, True, True]


async def test_fields_count_as_whether_one_matches_a_pattern(engine: str) -> None:
    def decide(head: RecordingHead) -> Decision:
        return plan() if head.carries(4) else reply(Cause.FORBIDDEN_ORIGIN)

    asked = (
        *(("X-Forwarded-For", "1"), ("X-Forwarded-Host", "2"), ("Via", "x"), ("Viaduct", "x")),
        *(("Content-Type", "Text/Word; q=1"), ("Content-Type", "text/words"), ("Accept", "text/word")),
    )
    async with http_app() as app, running(engine) as node:
        node.engine.set_members(4, frozenset({b"x-forwarded-*", b"via", b"content-type: text/word"}))
        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            statuses = [(await caller.request("GET", "/", headers=[field])).status for field in asked]
    assert statuses == [200, 200, 200, 403, 200, 403, 403]
    assert node.seen.cache == [False, True, True, False, True, True, True]


async def test_baggage_counts_as_what_is_wrong_with_it(engine: str) -> None:
    asked = ("", "a=1", "b=2,c=3;p", "broken", "a=1,also broken", ",".join(["a=1"] * 65))
    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        port = await node.listen(lambda head: reply(Cause.BAD_REQUEST) if head.baggage() else plan())
        async with connect(port) as caller:
            statuses = [
                (await caller.request("GET", "/", headers=[("Baggage", text)])).status for text in asked
            ]
    assert statuses == [200, 200, 200, 400, 400, 400]
    assert node.seen.cache == [False, True, True, False, True, False]


async def test_baggage_counts_as_whether_its_keys_are_in_a_set(engine: str) -> None:
    asked = ("tenant=1", "tenant=2,tenant=3", "user=1", "tenant=1,user=2", "tenant=1,broken", "")
    async with http_app() as app, running(engine) as node:
        node.engine.set_members(5, frozenset({b"tenant"}))
        node.cluster("app", app)
        port = await node.listen(
            lambda head: plan() if head.baggage(5) in ("", "malformed") else reply(Cause.BAD_REQUEST)
        )
        async with connect(port) as caller:
            statuses = [
                (await caller.request("GET", "/", headers=[("Baggage", text)])).status for text in asked
            ]
    assert statuses == [200, 200, 400, 400, 200, 200]
    assert node.seen.cache == [False, True, False, True, False, True]


async def test_invalidate_drops_the_plans_of_its_scope_alone(engine: str) -> None:
    closed = False

    def decide(head: RecordingHead) -> Decision:
        if head.method() == "GET":
            return replace(reply(Cause.DENIED) if closed else plan(), scopes=("access",))
        return replace(plan(), scopes=("naming",))

    async with http_app() as app, leading(engine, "one", app, decide=decide) as way:
        async with connect(way.port) as caller:
            before = [(await caller.request(method, "/echo")).status for method in ("GET", "HEAD")]
            closed = True
            kept = (await caller.request("GET", "/echo")).status
            way.front.engine.invalidate("access")
            after = [(await caller.request(method, "/echo")).status for method in ("GET", "HEAD")]
        seen = way.front.seen
    assert (before, kept, after) == ([200, 200], 200, [403, 200])
    assert seen.cache == [False, False, True, False, True]


async def test_kept_plan_holds_no_value_of_another_call(engine: str) -> None:
    async with (
        http_app() as app,
        leading(engine, "one", app, total_s=30.0) as way,
        connect(way.port) as caller,
    ):
        first = await caller.request("POST", "/echo?a=1", headers=[("X-Mine", "1")], body=b"first")
        second = await caller.request("PUT", "/echo?b=2", headers=[("X-Yours", "2")], body=b"second!")
    assert (b"x-mine" in first.body.lower(), b"x-mine" in second.body.lower()) == (True, False)
    assert b'"target": "/echo?b=2"' in second.body
    assert b'"body": "second!"' in second.body


async def test_calls_in_flight_keep_the_plan_they_began_with(engine: str) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        begun.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with (
        raw_app(app) as port,
        leading(engine, "one", port, scopes=("s",)) as way,
        connect(way.port) as caller,
    ):
        await caller.send_head("GET", "/")
        await begun.wait()
        way.front.engine.invalidate("s")
        way.front.engine.drop_cluster("app")
        go.set()
        response = await caller.read_response("GET")
    assert (response.status, response.body) == (200, b"ok")


@pytest.mark.parametrize("length", [255, 256, 257, 300, 2048])
async def test_kept_decision_never_serves_another_caller_however_long_its_id(
    engine: str, mint: Mint, length: int
) -> None:
    namespace = "n" * (length - len(f"spiffe://{DOMAIN}/ns//good"))
    good, evil = (str(SpiffeId(DOMAIN, namespace, app)) for app in ("good", "evil"))
    assert len(good) == len(evil) == length
    told = (Edit(op=Op.HOP_BY_HOP), Edit(op=Op.CALLER))

    def decide(head: RecordingHead) -> Decision:
        return (
            plan(routes=(Route(cluster="app", edits=told),)) if head.peer() == good else reply(Cause.DENIED)
        )

    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(decide, name="peer", tls="mesh")
        answers: dict[str, list[Message]] = {}
        for app_id in ("evil", "good", "evil", "good"):
            context = mint.client_context(app_id, namespace=namespace)
            async with dial(port, tls=context) as caller:
                answer = await caller.whole(await caller.request(b"/echo"))
            answers.setdefault(app_id, []).append(answer)
    assert [answer.status for answer in answers["evil"]] == [403, 403]
    assert [answer.status for answer in answers["good"]] == [200, 200]
    for answer in answers["good"]:
        seen = dict(json.loads(answer.body)["headers"])
        assert (seen["dapr-caller-app-id"], seen["dapr-caller-namespace"]) == ("good", namespace)


@pytest.mark.parametrize("shared", [True, False])
async def test_app_is_told_of_this_calls_caller_and_never_of_the_kept_decisions(
    engine: str, mint: Mint, shared: bool
) -> None:
    told = (Edit(op=Op.HOP_BY_HOP), Edit(op=Op.CALLER))

    def decide(head: RecordingHead) -> Decision:
        if not shared:
            head.peer()
        return plan(routes=(Route(cluster="app", edits=told),))

    async with http_app() as app, running(engine) as node:
        node.engine.set_identity(mint.identity("callee"))
        node.cluster("app", app)
        port = await node.listen(decide, name="peer", tls="mesh")
        for app_id in ("one", "two", "one"):
            async with dial(port, tls=mint.client_context(app_id)) as caller:
                forged = ((b"dapr-caller-app-id", b"forged"), (b"dapr-caller-namespace", b"forged"))
                answer = await caller.whole(await caller.request(b"/echo", headers=forged))
            seen = [(name, value) for name, value in json.loads(answer.body)["headers"] if "caller" in name]
            assert seen == [("dapr-caller-app-id", app_id), ("dapr-caller-namespace", "default")]


BOUND = 256  # MAX_KEY_BYTES in proxy/contract/plan.py


@pytest.mark.parametrize(
    "value", ["c" * (BOUND - 1), "c" * BOUND, "c" * (BOUND + 1), "é" * 200, "é" * BOUND], ids=len
)
async def test_naming_header_around_the_bound_of_keys_gets_the_decision_of_its_own(
    engine: str, value: str
) -> None:
    def decide(head: RecordingHead) -> Decision:
        return plan() if head.naming(b"dapr-app-id") == value else reply(Cause.NO_APP)

    async def status(port: int, sent: str) -> int:
        async with connect(port) as caller:
            return (await caller.request("GET", "/echo", headers=(("dapr-app-id", sent),))).status

    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        port = await node.listen(decide)
        found = [await status(port, sent) for sent in (value[:-1] + "d", value, value[:-1] + "d", value)]
    wanted = 200 if len(value) <= BOUND else 404  # a longer one reads as LONG, for the decider as well
    assert found == [404, wanted, 404, wanted]


async def test_decision_for_a_path_is_not_that_for_another_reading_of_it(engine: str) -> None:
    caller_id = Caller(trust_domain="public", namespace="shop", app_id="cart")
    deny = Rule(pattern="/item/*", verbs=frozenset("*"), is_allow=False)
    table = path_table([deny.pattern], [deny.verbs], fold_case=True)
    known = {caller_id: CallerRules(policy="cart", default_allow=True, rules=(deny,), table=table)}
    rules = AccessRules(default_allow=False, callers=known)

    def decide(head: RecordingHead) -> Decision:
        classes = head.path_class(16)
        assert isinstance(classes, tuple)
        return plan() if rules.decide(caller_id, classes, "GET", "http").allowed else reply(Cause.DENIED)

    asked = {
        **dict.fromkeys(("/item/7/y", "/a%2Fb", "/x/../y", "//a", "/a;b", "/a%252Fb/%20", "/100%25"), 200),
        **dict.fromkeys(("/item/7;x/y", "/ITEM/7;x/y", "/item/7%3Bx/y", "/item/%C3%A4;x/y"), 403),
        **dict.fromkeys(("/%69tem/7", "/%2569tem/7", "/x%2F../item/7", "/x/%2e%2e/item/7", "//item/7"), 403),
        **dict.fromkeys(("/x\\..\\item/7", "/item%2F7", "/item/7%3Fx/y", "//x/item/7"), 403),
        **dict.fromkeys(("/100%25ab", "/%FF", "/a%2500", "/%61" + "a" * 8192), 403),
    }
    async with http_app() as app, running(engine) as node:
        node.engine.set_paths(16, AccessPaths(table))
        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            for _ in range(2):
                found = {target: (await caller.request("GET", target)).status for target in asked}
                assert found == asked


async def test_paths_that_only_the_decider_can_class_take_no_memory_for_ever(engine: str) -> None:
    def decide(head: RecordingHead) -> Decision:
        assert head.path_class(7) == "open"
        return reply(Cause.DENIED)

    def resident_kb() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    async with running(engine) as node:
        node.engine.set_paths(7, FirstSegment())
        port = await node.listen(decide)
        async with connect(port) as caller:
            before, statuses = 0, set()
            for number in range(600):
                if number == 100:  # what the first of them take is taken once
                    before = resident_kb()
                node.seen.outcomes.clear()
                statuses.add((await caller.request("GET", f"/open/{number}/{'x' * 50_000}")).status)
    assert statuses == {403}
    assert resident_kb() - before < 12_000  # 500 paths of 50 kB, of which 1 MiB may stay


async def test_refused_callers_push_out_no_plan_of_others(engine: str) -> None:
    def decide(head: RecordingHead) -> Decision:
        if head.naming(b"dapr-app-id") == "friend":
            return plan()
        return reply(Cause.DENIED, body=b"x" * 60_000)

    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        port = await node.listen(decide)
        async with connect(port) as caller:
            names = ("friend", *(f"stranger-{number}" for number in range(200)), "friend")
            statuses = [
                (await caller.request("GET", "/echo", headers=(("dapr-app-id", name),))).status
                for name in names
            ]
        kept = node.engine.stats().plans_kept
    assert statuses == [200, *[403] * 200, 200]
    assert (node.seen.cache[-1], node.seen.cache.count(True)) == (True, 1)
    assert kept < 100  # 8 MiB of answers, which are held on both sides of the engine


@pytest.mark.parametrize("credentials", ["ZGFwci1hcHAtaWQ6Y2FydA==", "ZGFwci1hcHAtaWQ6Y2FydB=="])
async def test_decision_by_an_app_id_in_credentials_is_not_kept_for_calls_without_any(
    engine: str, credentials: str
) -> None:
    """Of the second, pad bits are set: RFC 4648 §3.5 leaves open whether that is base64, and both sides must read it alike."""

    def decide(head: RecordingHead) -> Decision:
        return plan() if head.naming(b"authorization") == "cart" else reply(Cause.DENIED)

    async with http_app() as app, running(engine) as node:
        node.cluster("app", app)
        port = await node.listen(decide)
        named = [("Authorization", f"Basic {credentials}")]
        async with connect(port) as caller:
            statuses = [
                (await caller.request("GET", "/", headers=fields)).status for fields in (named, [], named)
            ]
    assert statuses == [200, 403, 200]
