"""What is asked of an agent, and what is made of answers that a real one gives rarely."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct

from nameresolution.consul.agent import ConsulAgent, HttpAnswer
from nameresolution.consul.settings import AgentSettings
from nameresolution.errors import ConsulError

Asked = tuple[str, str, list[tuple[str, str]]]


class Answered(Struct):
    """An answer of the agent."""

    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b"[]"


DEEP = b'[{"Node":{},"Service":{},"X":' + b"[" * 100_000 + b"]" * 100_000 + b"}]"


def agent(
    answer: Callable[[], HttpAnswer], asked: list[Asked] | None = None, settings: AgentSettings | None = None
) -> ConsulAgent:
    """One that answers so, and notes in `asked` what it was asked."""

    async def request(address: str, method: str, target: str, **rest: Any) -> HttpAnswer:
        if asked is not None:
            asked.append((method, target, list(rest["headers"])))
        return answer()

    return ConsulAgent(settings or AgentSettings(), request)


def fails(error: Exception) -> Callable[[], HttpAnswer]:
    """No answer."""

    def answer() -> HttpAnswer:
        raise error

    return answer


async def test_query_waits_beyond_an_index_and_takes_own_headers_first() -> None:
    asked: list[Asked] = []
    settings = AgentSettings(headers=(("x-consul-token", "a"),), query=(("dc", "dc1"),), prefix="/v2")
    asking = agent(lambda: Answered(headers=((b"x-consul-index", b"9"),)), asked, settings)
    assert (await asking.healthy("a b", 0, 60.0, (("cached", ""),), ())).index == 9
    assert (await asking.healthy("a b", 9, 60.0, (), (("x-consul-token", "b"),))).index == 9
    kind = ("content-type", "application/json")
    assert asked == [
        ("GET", "/v2/v1/health/service/a%20b?dc=dc1&passing=1&cached=", [("x-consul-token", "a"), kind]),
        (
            "GET",
            "/v2/v1/health/service/a%20b?dc=dc1&passing=1&index=9&wait=60000ms",
            [("x-consul-token", "b"), kind],
        ),
    ]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (lambda: Answered(status=403, body=b"Permission denied\n"), "answered 403: Permission denied"),
        (lambda: Answered(status=500, body=b""), "answered 500"),
        (lambda: Answered(body=b"<html>"), "an answer that can't be read: "),
        (lambda: Answered(body=DEEP), "an answer that can't be read: "),
        (fails(TimeoutError()), "no answer within 5 s"),
        (fails(ConnectionRefusedError("127.0.0.1:8500: connection refused")), "connection refused"),
        (fails(ValueError("no port")), "no port"),
    ],
)
async def test_failure_names_the_agent_and_the_problem(
    answer: Callable[[], HttpAnswer], problem: str
) -> None:
    with pytest.raises(ConsulError, match=rf"^consul at 127\.0\.0\.1:8500: {problem}"):
        await agent(answer).healthy("cart", 0, 60.0, (), ())


async def test_index_that_is_no_number_of_consuls_is_none() -> None:
    answered = Answered(headers=((b"x-consul-index", b"9" * 5_000),))
    assert (await agent(lambda: answered).healthy("cart", 7, 60.0, (), ())).index == 0


async def test_missing_service_is_no_failure_where_it_is_asked_for() -> None:
    missing = agent(lambda: Answered(status=404))
    assert not await missing.is_registered("cart")
    await missing.deregister("cart")
    with pytest.raises(ConsulError, match="answered 404"):
        await missing.healthy("cart", 0, 60.0, (), ())
