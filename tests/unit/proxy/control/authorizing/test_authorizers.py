"""Who is asked, in which order, what is kept, and that nothing goes on where nobody could say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from policies.rules.authorizers import ExternalAuthorizer
from proxy.contract.authorizing import Authorized, Granted, Unanswered
from proxy.contract.plan import Cause, Edit, Labels, Op, Plan, Reply, Route
from proxy.control.authorizing import authorizers as module
from proxy.control.authorizing import kept_answers
from proxy.control.authorizing.authorizers import Authorizers, Client
from proxy.control.authorizing.question import Party, Question
from proxy.control.authorizing.verdicts import Allowed, AuthorizerError, Denied, Verdict
from proxy.deciding.app_answers import CauseReplies
from tests.unit.proxy.heads import head

LABELS = Labels(direction="inbound", src="web", dst="shop", decision="policy=p rule=r reason=rule asks=one")
SPEC = ExternalAuthorizer(name="one", kind="opa", target="http://localhost:1/x", timeout_s=5.0)
SET = Edit(op=Op.SET, name=b"x-user", data=b"ann")


class Says(Client):
    """Answers in turn, the last one on and on; an exception is raised, None: never."""

    def __init__(self, *answers: Verdict | Exception | None) -> None:
        self._answers = list(answers)
        self.asked: list[Question] = []

    async def ask(self, asked: Question) -> Verdict:
        self.asked.append(asked)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Allowed | Denied)
        return answer

    async def close(self) -> None:
        """Nothing is open."""


def plan(*names: str) -> Plan:
    replies = CauseReplies(LABELS, "own", "shop.default", "shop", end="app")
    return Plan(
        labels=LABELS, routes=(Route(cluster="app"),), authorizers=names or ("one",), local_replies=replies
    )


class Asking:
    """Authorizers at work, with clients of the test."""

    def __init__(self, made: Authorizers) -> None:
        self.made = made
        self.counted: list[tuple[str, str]] = []

    def count(self, authorizer: str, result: str, took_s: float) -> None:
        self.counted.append((authorizer, result))

    def use(self, specs: dict[str, ExternalAuthorizer], **clients: Client) -> None:
        self.made.configure(specs)
        for name, client in clients.items():
            self.made._known[name].client = client

    async def ask(self, *names: str, target: str = "/a") -> Authorized:
        told: asyncio.Future[Authorized] = asyncio.get_running_loop().create_future()
        self.made.authorize(plan(*names), head(target), told.set_result)
        return await told


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    made = Asking(Authorizers(Party(app_id="shop", namespace="default")))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(made.made.run(made.count))
        await asyncio.sleep(0)
        try:
            yield made
        finally:
            task.cancel()


async def test_all_are_asked_in_order_until_one_refuses() -> None:
    async with asking() as one:
        first, second = Says(Allowed((SET,))), Says(Allowed(), Denied(401, ((b"x", b"y"),), b"who?"))
        one.use({"one": SPEC, "two": replace(SPEC, name="two")}, one=first, two=second)
        assert await one.ask("one", "two") == Granted(request=(SET,))
        refused = await one.ask("one", "two")
    assert isinstance(refused, Reply)
    assert (refused.status, refused.body, refused.grpc_code, refused.cause) == (
        401,
        b"who?",
        16,
        Cause.DENIED,
    )
    assert (b"x", b"y") in refused.headers
    assert (b"postern-error", b"denied") in refused.headers
    assert refused.labels.decision.endswith("asks=one denied_by=two")
    assert one.counted == [("one", "allowed"), ("two", "allowed"), ("one", "allowed"), ("two", "denied")]


async def test_refusal_without_a_body_says_whose_it_is() -> None:
    async with asking() as one:
        one.use({"one": SPEC}, one=Says(Denied()))
        refused = await one.ask()
    assert isinstance(refused, Reply)
    assert b"access to shop.default is denied by the authorizer one" in refused.body
    assert (refused.status, refused.grpc_code) == (403, 7)
    assert refused.grpc_message == "access to shop.default is denied by the authorizer one"


@pytest.mark.parametrize(
    ("failure", "result", "said"),
    [
        (AuthorizerError("broken"), "error", "gave no answer that counts"),
        (AuthorizerError("late", "timeout"), "timeout", "did not answer in time"),
        (None, "timeout", "did not answer in time"),
        (RuntimeError("a fault of ours"), "error", "this proxy failed to ask"),
    ],
)
async def test_nothing_goes_on_where_nobody_says_so(
    failure: Exception | None, result: str, said: str
) -> None:
    async with asking() as one:
        one.use({"one": replace(SPEC, timeout_s=0.02 if failure is None else 5.0)}, one=Says(failure))
        found = await one.ask()
    assert isinstance(found, Unanswered)
    assert said in found.detail
    assert one.counted == [("one", result)]


async def test_failing_open_lets_by_what_gets_no_answer_alone() -> None:
    async with asking() as one:
        one.use({"one": replace(SPEC, is_fail_open=True)}, one=Says(AuthorizerError("gone"), Denied()))
        assert await one.ask() == Granted()
        assert isinstance(await one.ask(), Reply)
        assert one.counted == [("one", "error"), ("one", "denied")]


async def test_failing_open_lets_no_caller_send_what_the_authorizer_alone_gives() -> None:
    async with asking() as one:
        spec = replace(SPEC, is_fail_open=True, to_app=frozenset({"x-user"}))
        one.use({"one": spec}, one=Says(AuthorizerError("gone")))
        assert await one.ask() == Granted(request=(Edit(op=Op.REMOVE, name=b"x-user"),))


@pytest.mark.parametrize("text", ["a" * 5_000, "日" * 3_000, "%\n" * 3_000])
async def test_what_grpc_callers_read_of_a_refusal_is_short_enough_for_their_clients(text: str) -> None:
    async with asking() as one:
        one.use({"one": SPEC}, one=Says(Denied(body=text.encode())))
        refused = await one.ask()
    assert isinstance(refused, Reply)
    assert refused.body == text.encode()
    assert text.startswith(refused.grpc_message)
    assert 1_000 < len(quote(refused.grpc_message)) <= 1_024


async def test_one_that_is_unknown_and_one_that_is_not_served_yet_are_no_leave() -> None:
    async with asking() as one:
        one.use({"one": SPEC}, one=Says(Allowed()))
        assert await one.ask("one", "gone") == Unanswered("the authorizer gone is not known any more")
    stopped = Authorizers(Party())
    stopped.configure({"one": SPEC})
    told: list[Authorized] = []
    stopped.authorize(plan(), head("/"), told.append)
    assert told == [Unanswered("this proxy is not serving")]


async def test_answers_hold_for_equal_questions_alone_and_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0])
    monkeypatch.setattr(module, "time", clock)
    async with asking() as one:
        says = Says(Allowed((SET,)), Denied())
        one.use({"one": replace(SPEC, cache_s=600.0)}, one=says)
        for target in ("/a", "/a", "/b", "/b", "/a"):
            await one.ask(target=target)
        assert len(says.asked) == 2
        assert [result for _, result in one.counted] == ["allowed", "cached", "denied", "cached", "cached"]
        now[0] += 601.0
        await one.ask()
        assert len(says.asked) == 3


async def test_what_is_kept_and_what_is_asked_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "MAX_ANSWERS", 2)
    monkeypatch.setattr(module, "MAX_ASKING", 1)
    async with asking() as one:
        one.use({"one": replace(SPEC, cache_s=600.0)}, one=Says(Allowed()))
        for number in range(4):
            await one.ask(target=f"/{number}")
        (status,) = one.made.status()
        assert status["cached"] == 2
        one.use({"one": SPEC}, one=Says(None))
        told: list[Authorized] = []
        one.made.authorize(plan(), head("/"), told.append)
        await asyncio.sleep(0)
        found = await one.ask()
        assert isinstance(found, Unanswered)
        assert one.counted[-1] == ("one", "busy")
    assert told == [Unanswered("this proxy is shutting down")]


async def test_equal_settings_go_on_with_what_they_have() -> None:
    async with asking() as one:
        says = Says(Allowed())
        one.use({"one": replace(SPEC, cache_s=600.0)}, one=says)
        await one.ask()
        one.made.configure({"one": replace(SPEC, cache_s=600.0)})
        await one.ask()
        assert len(says.asked) == 1
        one.made.configure({"one": replace(SPEC, cache_s=60.0)})
        assert one.made._known["one"].client is not says
