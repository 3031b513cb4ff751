from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nameresolution.cache import Lifetimes
from nameresolution.directory import Directory
from nameresolution.resolver import AppName, Endpoint, EndpointSet, Found, Instance, Push, SourceFailure

CART = AppName("cart", "default")
ONE = Endpoint(host="10.0.0.1", port=1, instance="a", source="fake")
US = Instance(app_id="us", namespace="default", host="10.0.0.9", port=9, instance="me", mesh="ours")


class FakeResolver:
    """A source whose words are given by the test."""

    def __init__(self, source: str = "fake") -> None:
        self.source = source
        self.lag_s = 0.0
        self.asked: list[AppName] = []
        self.forgot = asyncio.Event()
        self.told: list[object] = []
        self.runs = 0
        self.fail: Exception | None = None
        self._push: Push | None = None

    async def run(self, push: Push) -> None:
        self.runs += 1
        self._push = push
        if self.fail is not None:
            raise self.fail
        await asyncio.Event().wait()

    def watch(self, name: AppName) -> None:
        self.asked.append(name)

    def forget(self, name: AppName) -> None:
        self.forgot.set()

    async def announce(self, instance: Instance) -> None:
        if self.fail is not None:
            raise self.fail
        self.told.append(instance)

    async def withdraw(self) -> None:
        self.told.append("withdraw")

    def say(self, found: Found, name: AppName = CART) -> None:
        assert self._push is not None
        self._push(self.source, name, found)


@asynccontextmanager
async def running(directory: Directory) -> AsyncIterator[asyncio.Queue[EndpointSet]]:
    pushed: asyncio.Queue[EndpointSet] = asyncio.Queue()
    directory.subscribe(pushed.put_nowait)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(directory.run())
        await directory.wait_running()
        await asyncio.sleep(0)
        yield pushed
        task.cancel()


async def test_want_asks_once_and_the_answer_is_pushed_at_once() -> None:
    fake = FakeResolver()
    directory = Directory([fake])
    async with running(directory) as pushed:
        directory.want(CART)
        directory.want(CART)
        assert fake.asked == [CART]
        assert directory.get(CART) is None
        fake.say((ONE,))
        assert pushed.get_nowait().endpoints == (ONE,)
        found = directory.get(CART)
        assert found is not None
        assert directory.known() == (found,)


async def test_silent_sources_end_in_an_empty_set_that_expires() -> None:
    fake = FakeResolver()
    directory = Directory([fake], lifetimes=Lifetimes(budget_s=0.01, negative_s=0.01, forget_s=0.03))
    async with running(directory) as pushed:
        directory.want(CART)
        assert (await pushed.get()).tried == ("fake: no answer within 0.0 s",)
        await fake.forgot.wait()
        assert directory.get(CART) is None
        assert directory.explain(CART) == "not looked for yet"


async def test_explain_names_every_source_while_asking_and_after() -> None:
    one, two = FakeResolver("host registry"), FakeResolver("mdns")
    directory = Directory([one, two])
    async with running(directory):
        directory.want(CART)
        one.say(SourceFailure(reason="no entry", missing=True))
        assert directory.explain(CART) == "host registry: no entry; mdns: still asking"
        two.say(SourceFailure(reason="nobody answered", fix="open UDP 5353", missing=True))
        assert directory.explain(CART) == (
            "host registry: no entry; mdns: nobody answered (fix: open UDP 5353)"
        )


async def test_announce_reaches_the_sources_that_work_and_names_us() -> None:
    broken, fake = FakeResolver("broken"), FakeResolver("fake")
    broken.fail = ValueError("no")
    directory = Directory([broken, fake])
    await directory.announce(US)
    await directory.withdraw()
    assert fake.told == [US, "withdraw"]
    async with running(directory):
        directory.want(CART)
        own = Endpoint(host="10.0.0.9", port=9, instance="me", attributes=(("m", "ours"),))
        fake.say((own, Endpoint(host="10.0.0.3", port=1, attributes=(("m", "foreign"),))))
        found = directory.get(CART)
        assert found is not None
        assert [(endpoint.instance, endpoint.own) for endpoint in found.endpoints] == [("me", True)]


async def test_source_that_breaks_is_reported_and_the_others_work_on() -> None:
    broken, fake = FakeResolver("broken"), FakeResolver("fake")
    broken.fail = OSError("no sockets")
    directory = Directory([broken, fake])
    directory.want(CART)
    async with running(directory) as pushed:
        assert directory.explain(CART).startswith("broken: failed (OSError: no sockets), starting again")
        fake.say((ONE,))
        assert pushed.get_nowait().endpoints == (ONE,)


async def test_subscriber_that_fails_keeps_nothing_from_the_next_and_an_ended_one_hears_nothing() -> None:
    fake = FakeResolver()
    directory = Directory([fake])
    silent: list[EndpointSet] = []

    def fail(endpoints: EndpointSet) -> None:
        raise ValueError(endpoints.name)

    directory.subscribe(fail)
    directory.subscribe(silent.append)()
    async with running(directory) as pushed:
        directory.want(CART)
        fake.say((ONE,))
        assert pushed.qsize() == 1
        assert silent == []
