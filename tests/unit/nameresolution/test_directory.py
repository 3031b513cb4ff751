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


TWO = Endpoint(host="10.0.0.2", port=2, instance="b", source="fake")


async def test_replaced_sources_are_asked_for_every_name_and_what_was_known_stays_until_they_answered() -> (
    None
):
    before, one, two = FakeResolver(), FakeResolver(), FakeResolver("other")
    directory = Directory([before])
    async with running(directory) as pushed:
        directory.want(CART)
        before.say((ONE,))
        assert pushed.get_nowait().endpoints == (ONE,)
        directory.replace([one, two])
        assert (one.asked, two.asked) == ([CART], [CART])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        before.say(())  # nobody listens to it any more
        two.say((TWO,))
        assert pushed.get_nowait().endpoints == (TWO, ONE)
        one.say(SourceFailure(reason="no entry", missing=True))
        assert pushed.get_nowait().endpoints == (TWO,)
        assert directory.explain(CART) == "fake: no entry; other: 1 endpoint"


async def test_replaced_sources_that_all_fail_leave_what_was_known_as_stale_until_one_works() -> None:
    before, after = FakeResolver(), FakeResolver()
    directory = Directory([before])
    async with running(directory) as pushed:
        directory.want(CART)
        before.say((ONE,))
        pushed.get_nowait()
        directory.replace([after])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        after.say(SourceFailure(reason="no agent"))
        kept = pushed.get_nowait()
        assert (kept.endpoints, kept.stale) == ((ONE,), True)
        after.say((TWO,))
        found = pushed.get_nowait()
        assert (found.endpoints, found.stale) == ((TWO,), False)


async def test_silent_sources_that_replaced_others_leave_what_was_known_as_stale() -> None:
    before = FakeResolver()
    directory = Directory([before], lifetimes=Lifetimes(budget_s=0.01))
    async with running(directory) as pushed:
        directory.want(CART)
        before.say((ONE,))
        pushed.get_nowait()
        directory.replace([FakeResolver()])
        kept = await pushed.get()
        assert (kept.endpoints, kept.stale) == ((ONE,), True)


class Ending(FakeResolver):
    """One that says when it is ended."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.ended = asyncio.Event()

    async def run(self, push: Push) -> None:
        try:
            await super().run(push)
        finally:
            self.ended.set()


async def test_replaced_source_takes_us_back_and_ends_once_the_new_one_has_announced_us() -> None:
    told: list[str] = []

    class Telling(Ending):
        async def announce(self, instance: Instance) -> None:
            told.append(f"announce {self.source}")

        async def withdraw(self) -> None:
            told.append(f"withdraw {self.source}")

    same, gone = Telling("same"), Telling("gone")
    directory = Directory([same, gone])
    async with running(directory):
        await directory.announce(US)
        told.clear()
        directory.replace([Telling("same"), Telling("new")])
        await same.ended.wait()
        await gone.ended.wait()
    # One that tells the same place of us would take back what the other has told.
    assert told == ["withdraw same", "announce same", "announce new", "withdraw gone"]


async def test_names_that_nobody_had_are_looked_for_again_by_the_sources_that_replace_others() -> None:
    before, after = FakeResolver(), FakeResolver()
    directory = Directory([before])
    async with running(directory) as pushed:
        directory.want(CART)
        before.say(SourceFailure(reason="no entry", missing=True))
        assert pushed.get_nowait().endpoints == ()
        directory.replace([after])
        assert directory.get(CART) is None
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        after.say((TWO,))
        assert pushed.get_nowait().endpoints == (TWO,)
