"""What the resolver makes of answers that a real agent gives rarely; the rest is in tests/integration/nameresolution/test_consul.py."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct

from nameresolution.consul.agent import ConsulAgent, HttpAnswer
from nameresolution.consul.resolver import ConsulResolver
from nameresolution.consul.settings import AgentSettings, ConsulSettings
from nameresolution.resolver import AppName, Found, Instance, SourceFailure

CART = AppName("cart", "default")
ENTRY = {"Node": {"Address": "10.0.0.9"}, "Service": {"ID": "c1", "Meta": {"DAPR_PORT": "5"}}}


class Answered(Struct):
    """An answer of the agent."""

    body: bytes = b"[]"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status: int = 200


def healthy(index: int, *entries: dict[str, Any]) -> Answered:
    """The instances of a service."""
    return Answered(body=json.dumps(entries).encode(), headers=((b"x-consul-index", b"%d" % index),))


class Agent:
    """Gives the answers one after another, then none; `asked` are the targets."""

    def __init__(self, *answers: Answered | Exception) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def request(self, address: str, method: str, target: str, **_: Any) -> HttpAnswer:
        """See HttpRequest."""
        self.asked.append(f"{method} {target}")
        if not self._answers:
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def watching(agent: Agent) -> AsyncIterator[asyncio.Queue[Found]]:
    """A resolver that watches CART; what it pushes."""
    pushed: asyncio.Queue[Found] = asyncio.Queue()
    resolver = ConsulResolver(ConsulSettings(), ConsulAgent(AgentSettings(), agent.request))
    resolver.watch(CART)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(resolver.run(lambda _source, _name, found: pushed.put_nowait(found)))
        yield pushed
        running.cancel()


async def test_index_that_went_backwards_begins_anew_and_a_node_lends_its_address() -> None:
    agent = Agent(healthy(7, ENTRY), healthy(3), healthy(4, ENTRY))
    async with watching(agent) as pushed:
        found = await pushed.get()
        assert not isinstance(found, SourceFailure)
        assert [end.address for end in found] == ["10.0.0.9:5"]
        assert await pushed.get() == SourceFailure(
            reason="no instance of cart whose checks pass", missing=True
        )
        assert isinstance(await pushed.get(), tuple)
    waited = ["index=" in target for target in agent.asked[:3]]
    assert waited == [False, True, False]


async def test_failure_is_no_absence_and_the_next_query_does_not_wait() -> None:
    agent = Agent(healthy(7, ENTRY), Answered(status=500, body=b"No cluster leader"), healthy(8, ENTRY))
    async with watching(agent) as pushed:
        first = await pushed.get()
        failed = await pushed.get()
        assert failed == SourceFailure(reason="127.0.0.1:8500: answered 500: No cluster leader")
        assert await pushed.get() == first
    assert ["index=" in target for target in agent.asked[:3]] == [False, True, False]


async def test_agent_elsewhere_that_cannot_ask_for_our_health_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = Agent(Answered(), Answered())
    resolver = ConsulResolver(
        ConsulSettings(registers=True), ConsulAgent(AgentSettings(address="10.1.1.1:8500"), agent.request)
    )
    with caplog.at_level(logging.WARNING):
        await resolver.announce(
            Instance(
                app_id="cart",
                namespace="default",
                host="10.0.0.1",
                port=5,
                instance="i",
                app_port=1,
                http_host="127.0.0.1",
                http_port=3500,
            )
        )
    assert "the agent at 10.1.1.1:8500 can't ask 127.0.0.1:3500 for our health" in caplog.text
    assert agent.asked == [
        "PUT /v1/agent/service/deregister/cart-10.0.0.1-3500",
        "PUT /v1/agent/service/register",
    ]


@pytest.mark.parametrize("port", ["9" * 5_000, "-1", "65536", "\u00b2", ""])
async def test_port_that_is_none_hides_no_other_instance(port: str) -> None:
    bad = {"Node": {"Address": "10.0.0.8"}, "Service": {"ID": "c0", "Meta": {"DAPR_PORT": port}}}
    async with watching(Agent(healthy(7, bad, ENTRY))) as pushed:
        found = await pushed.get()
        assert not isinstance(found, SourceFailure)
        assert [end.address for end in found] == ["10.0.0.9:5"]
