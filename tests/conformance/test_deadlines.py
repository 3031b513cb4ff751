"""An HTTP call's time, as its caller gives it: it bounds the call, and each hop is told what is left."""

import time
from typing import Any

import pytest

from proxy.contract.plan import Cause
from tests.conformance.apps import raw_app
from tests.conformance.harness import leading, retry
from tests.conformance.test_attempts import BUSY, OK, Answering, Never
from tests.support.http_client import connect

NO_TIME = [
    ("postern-timeout", "0"),
    ("postern-timeout", "900u"),
    ("postern-deadline", "1000"),
]


@pytest.mark.parametrize("name", ["postern-timeout", "postern-deadline", "x-envoy-expected-rq-timeout-ms"])
async def test_call_ends_with_its_callers_time(engine: str, hops: str, name: str) -> None:
    async with raw_app(Never()) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        value = round(time.time() * 1_000) + 600 if name == "postern-deadline" else 600
        response = await caller.request("GET", "/", headers=[(name, str(value))])
        outcome = await way.front.seen.outcome()
    assert (response.status, response.get("postern-error")) == (504, "timeout")
    assert Cause.TIMEOUT in {outcome.cause, outcome.attempts[-1].said}  # either proxy's clock may be first


@pytest.mark.parametrize(("name", "value"), NO_TIME)
async def test_call_without_time_left_is_not_made(engine: str, name: str, value: str) -> None:
    app = Answering([OK])
    async with raw_app(app) as port, leading(engine, "one", port) as way, connect(way.port) as caller:
        response = await caller.request("GET", "/", headers=[(name, value)])
    assert (response.status, response.get("postern-error"), app.heads) == (504, "timeout", [])


async def test_app_is_told_what_is_left(engine: str, hops: str) -> None:
    app = Answering([OK])
    sent = [
        ("postern-timeout", "60S"),
        ("postern-deadline", str(round(time.time() * 1_000) + 90_000)),
        ("x-envoy-expected-rq-timeout-ms", "70000"),
    ]
    async with raw_app(app) as port, leading(engine, hops, port) as way, connect(way.port) as caller:
        assert (await caller.request("GET", "/", headers=sent)).status == 200
        assert (await caller.request("GET", "/")).status == 200
    first, second = app.heads
    left = int(first.get("postern-timeout") or 0)
    assert 30_000 < left <= 60_000
    assert first.get_all("postern-timeout") == first.get_all("x-envoy-expected-rq-timeout-ms") == [str(left)]
    assert first.get_all("postern-deadline") == []
    assert second.get_all("postern-timeout") == []


async def test_each_attempt_is_told_what_is_left_to_it(engine: str) -> None:
    app = Answering([BUSY, OK, OK])
    fields: dict[str, Any] = {"retries": (retry(3, http_codes=None, delay_s=0.2),), "attempt_s": 40.0}
    async with (
        raw_app(app) as port,
        leading(engine, "one", port, **fields) as way,
        connect(way.port) as caller,
    ):
        await caller.request("GET", "/", headers=[("postern-timeout", "30000")])
        await caller.request("GET", "/")
    first, second, third = (int(head.get("postern-timeout") or 0) for head in app.heads)
    assert 0 < first <= 30_000
    assert second <= first - 190
    assert 30_000 < third <= 40_000


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", ""])
async def test_malformed_time_is_none(engine: str, value: str) -> None:
    app = Answering([OK])
    async with raw_app(app) as port, leading(engine, "one", port) as way, connect(way.port) as caller:
        assert (await caller.request("GET", "/", headers=[("postern-timeout", value)])).status == 200
