"""Retries of a target take from one budget, and the bodies that wait for them from one room."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from proxy.contract.budgets import BudgetUse, RetryShare, RetryThrottle
from proxy.contract.engine import Limits
from proxy.contract.outcome import NotRetried
from proxy.contract.plan import Cause
from tests.conformance.apps import raw_app
from tests.conformance.harness import PINGLESS, always, leading, plan, retry, running
from tests.conformance.test_attempts import BUSY, OK, Answering
from tests.integration.mesh.standing import eventually
from tests.support.http_client import connect

ANY = retry(4, http_codes=None)
LONG_S = 1_000.0


def share(ratio: float, free: float, target: str = "app") -> BudgetUse:
    """`free` retries in all besides the share, as no test lasts so long."""
    return BudgetUse(target=target, rule=RetryShare(ratio=ratio, min_per_s=free / LONG_S, ttl_s=LONG_S))


async def test_storm_of_retries_ends_with_its_budget(engine: str) -> None:
    """200 calls of an app that is down, 4 attempts for each: without a budget 800."""
    app = Answering([BUSY])
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=(ANY,), budget=share(0.2, 3)) as way,
    ):

        async def call() -> int:
            async with connect(way.port) as caller:
                return (await caller.request("GET", "/")).status

        for _ in range(4):
            async with asyncio.TaskGroup() as tasks:
                calls = [tasks.create_task(call()) for _ in range(50)]
            assert {task.result() for task in calls} == {503}
        outcomes = [await way.front.seen.outcome(number) for number in range(200)]
    assert 240 <= len(app.heads) <= 200 + 40 + 3  # the last one may be lost to rounding
    why = Counter(outcome.not_retried for outcome in outcomes)
    assert why[NotRetried.BUDGET] + why[NotRetried.NO_ATTEMPTS] == 200
    assert why[NotRetried.BUDGET] >= 180


async def test_targets_have_budgets_of_their_own(engine: str) -> None:
    app = Answering([BUSY])
    rules = (ANY,)
    async with raw_app(app) as port, running(engine) as node:
        node.cluster("app", port)
        first = await node.listen(always(plan(budget=share(0, 1, "a"), retries=rules)), name="a")
        second = await node.listen(always(plan(budget=share(0, 2, "b"), retries=rules)), name="b")
        same = await node.listen(always(plan(budget=share(0, 1, "a"), retries=rules)), name="c")
        for number, entry in enumerate((first, second, same)):
            async with connect(entry) as caller:
                await caller.request("GET", "/")
            await node.seen.outcome(number)
        glances = {glance.target: glance for glance in node.engine.budgets()}
        assert {name: (glance.kind, round(glance.full, 6)) for name, glance in glances.items()} == {
            "a": ("share", 1.0),
            "b": ("share", 2.0),
        }
        assert [glance.left for glance in glances.values()] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert [len(outcome.attempts) for outcome in node.seen.outcomes] == [2, 3, 1]


async def test_inner_rules_take_nothing(engine: str) -> None:
    app = Answering([b"", b"", OK])
    inner = retry(4, Cause.RESET_EARLY, is_inner=True, http_codes=frozenset())
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=(inner, ANY), budget=share(0, 0)) as way,
        connect(way.port) as caller,
    ):
        assert (await caller.request("GET", "/")).status == 200
    assert len(app.heads) == 3


async def test_throttle_lets_nobody_retry_while_half_of_its_tokens_are_gone(engine: str) -> None:
    throttle = BudgetUse(target="app", rule=RetryThrottle(max_tokens=4.0, token_ratio=1.0))
    app = Answering([BUSY])
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, retries=(ANY,), budget=throttle) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/")  # 4 tokens, 3 after its first failure, 2 after the second
        await caller.request("GET", "/")
        app.answers[:] = [OK]
        for _ in range(3):
            await caller.request("GET", "/")
        app.answers[:] = [BUSY]
        await caller.request("GET", "/")
        outcomes = [await way.front.seen.outcome(number) for number in range(6)]
        assert tuple(way.front.engine.budgets()) == (("app", "throttle", 2.0, 4.0),)
    assert [len(outcome.attempts) for outcome in outcomes] == [2, 1, 1, 1, 1, 2]
    assert outcomes[0].not_retried is NotRetried.BUDGET


async def test_bodies_of_all_calls_have_one_room(engine: str) -> None:
    """Two requests that wait for their ends fill it; another body is sent once until they are over."""
    app = Answering([BUSY])
    limits: dict[str, Any] = {name: getattr(PINGLESS, name) for name in PINGLESS.__struct_fields__}
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, limits=Limits(**limits | {"replay_bytes": 10}), retries=(ANY,)) as way,
        connect(way.port) as first,
        connect(way.port) as second,
        connect(way.port) as third,
    ):
        for waiting in (first, second):
            await waiting.send_head("POST", "/", headers=[("Content-Length", "6")])
            waiting.writer.write(b"12345")
            await waiting.writer.drain()

        async def is_full() -> bool:
            return way.front.engine.open_work().replay_bytes == 10

        await eventually(is_full)
        assert (await third.request("POST", "/", body=b"x")).status == 503
        refused = await way.front.seen.outcome()
        for waiting in (first, second):
            waiting.writer.close()
        await way.front.seen.outcome(2)
        assert (await third.request("POST", "/", body=b"x")).status == 503
        kept = await way.front.seen.outcome(3)
    assert (refused.not_retried, len(refused.attempts)) == (NotRetried.BODY, 1)
    assert (kept.not_retried, len(kept.attempts)) == (NotRetried.NO_ATTEMPTS, 4)
