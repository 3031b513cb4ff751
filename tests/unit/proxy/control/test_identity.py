"""The SVID's owner: first fetch, renewal in time, failures that keep what is held, and what status says."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from proxy.control.identity import Clocks, Identity, WorkloadName
from sentry.authority import generate
from sentry.client import Svid
from sentry.errors import FetchError
from sentry.spiffe import SpiffeId

NAME = WorkloadName(app_id="cart", namespace="default", trust_domain="public")
BUNDLE = generate("localhost", "default", datetime.now(UTC)).bundle


class Source:
    """Hands out SVIDs of a given life, or fails while `is_down`."""

    def __init__(self, life_s: float = 3600.0) -> None:
        self.life_s = life_s
        self.is_down = False
        self.asked = 0
        self._changed = asyncio.Event()

    async def fetch(self, app_id: str, namespace: str, trust_domain: str) -> Svid:
        self.asked += 1
        self._changed.set()
        if self.is_down:
            raise FetchError("sentry_conn", "sentry is away", is_transient=True)
        now = datetime.now(UTC)
        return Svid(
            spiffe_id=SpiffeId(trust_domain, namespace, app_id),
            chain_pem=b"",
            key_pem=b"",
            not_before=now,
            not_after=now + timedelta(seconds=self.life_s),
            bundle=BUNDLE,
            serial=str(self.asked),
        )

    async def wait_asked(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.asked < count:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(identity: Identity) -> AsyncIterator[Identity]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(identity.run())
        yield identity
        task.cancel()


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- what is waited for is time passing, which sets no event
            await asyncio.sleep(0)


async def test_identity_before_the_first_is_pending() -> None:
    identity = Identity(Source(), NAME)
    assert identity.current is None
    status = identity.status()
    assert (status["state"], status["seconds_left"]) == ("pending", None)
    assert status["spiffe_id"] == "spiffe://public/ns/default/cart"


async def test_identity_first_is_held_and_told() -> None:
    seen: list[Svid] = []
    identity = Identity(Source(), NAME)
    identity.subscribe(seen.append)
    async with running(identity):
        svid = await identity.first(5)
    assert seen == [svid]
    assert identity.current is svid
    assert identity.status()["state"] == "held"


async def test_identity_late_subscriber_is_told_at_once() -> None:
    seen: list[Svid] = []
    identity = Identity(Source(), NAME)
    async with running(identity):
        svid = await identity.first(5)
        identity.subscribe(seen.append)
    assert seen == [svid]


async def test_identity_of_short_life_renews_at_half_of_it() -> None:
    source = Source(life_s=0.2)
    loop = asyncio.get_running_loop()
    at: list[float] = []
    identity = Identity(source, NAME, clocks=Clocks(chance=lambda: 0.5))
    identity.subscribe(lambda _: at.append(loop.time()))
    async with running(identity):
        await wait_until(lambda: len(at) >= 3)
    assert at[1] - at[0] >= 0.095
    assert identity.status()["renewals"] == len(at) - 1


async def test_identity_renewed_by_hand_does_not_wait() -> None:
    source = Source()
    identity = Identity(source, NAME)
    async with running(identity):
        await identity.first(5)
        identity.renew_now()
        await source.wait_asked(2)


async def test_identity_keeps_what_it_holds_while_sentry_is_away() -> None:
    source = Source()
    identity = Identity(source, NAME)
    async with running(identity):
        held = await identity.first(5)
        source.is_down = True
        identity.renew_now()
        await wait_until(lambda: identity.status()["failures"] == 1)
        status = identity.status()
        assert identity.current is held
        assert (status["state"], status["last_error"]) == ("renewing", "sentry is away")
        source.is_down = False
        identity.renew_now()
        await wait_until(lambda: identity.current is not held)
        assert identity.status()["last_error"] is None
        assert identity.status()["failures"] == 0


async def test_identity_that_ends_unrenewed_is_expired_and_still_shown() -> None:
    passed = 0.0
    source = Source(life_s=100)
    clocks = Clocks(monotonic=lambda: time.monotonic() + passed)
    identity = Identity(source, NAME, clocks=clocks)
    async with running(identity):
        held = await identity.first(5)
        source.is_down = True
        passed = 101.0
        identity.renew_now()
        await source.wait_asked(2)
        assert (identity.status()["state"], identity.is_expired) == ("expired", True)
        assert identity.current is held
        source.is_down = False
        identity.renew_now()
        await wait_until(lambda: identity.current is not held)
        assert not identity.is_expired


async def test_identity_tells_each_answer_of_its_source() -> None:
    told: list[tuple[str | None, bool]] = []
    source = Source()
    identity = Identity(source, NAME, observe=lambda failed_at, *, first: told.append((failed_at, first)))
    source.is_down = True
    async with running(identity):
        await wait_until(lambda: len(told) == 1)
        source.is_down = False
        identity.renew_now()
        await identity.first(5)
        source.is_down = True
        identity.renew_now()
        await wait_until(lambda: len(told) == 3)
        source.is_down = False
        identity.renew_now()
        await wait_until(lambda: len(told) == 4)
    assert told == [("sentry_conn", True), (None, True), ("sentry_conn", False), (None, False)]


async def test_identity_notices_a_wall_clock_that_jumps_ahead() -> None:
    offset = 0.0
    source = Source(life_s=100)
    clocks = Clocks(wall=lambda: datetime.now(UTC).timestamp() + offset)
    identity = Identity(source, NAME, clocks=clocks)
    async with running(identity):
        await identity.first(5)
        offset = 101.0
        assert identity.status()["state"] == "expired"


async def test_identity_first_that_never_comes_tells_why() -> None:
    source = Source()
    source.is_down = True
    identity = Identity(source, NAME)
    async with running(identity):
        with pytest.raises(FetchError, match="sentry is away"):
            await identity.first(0.05)
    with pytest.raises(FetchError, match="not answered yet"):
        await Identity(Source(), NAME).first(0.01)


async def test_identity_first_waits_through_failures() -> None:
    source = Source()
    source.is_down = True
    identity = Identity(source, NAME)
    async with running(identity):
        await source.wait_asked(1)
        source.is_down = False
        identity.renew_now()
        assert (await identity.first(5)).serial


async def test_identity_that_cannot_be_put_to_use_leaves_the_old_one_and_is_asked_for_again() -> None:
    """Out of descriptors, say: a renewal must not end the sidecar, nor must what does not work replace what does."""
    source = Source()
    identity = Identity(source, NAME)
    broken = False

    def use(_: Svid) -> None:
        if broken:
            raise OSError(24, "Too many open files")

    identity.subscribe(use)
    async with running(identity):
        held = await identity.first(5)
        broken = True
        identity.renew_now()
        await wait_until(lambda: identity.status()["failures"] == 1)
        assert identity.current is held
        assert "Too many open files" in str(identity.status()["last_error"])
        assert source.asked == 2  # after a pause, not at once
        broken = False
        identity.renew_now()
        await wait_until(lambda: identity.current is not held)
        status = identity.status()
    assert (status["failures"], status["last_error"], status["renewals"]) == (0, None, 1)
