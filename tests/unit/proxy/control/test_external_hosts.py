"""Lookups of hosts outside of the mesh: when one is due, what its outcome is, and which addresses nobody calls."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.control.external_hosts import (
    AGAIN_S,
    IDLE_S,
    LOOKUP_S,
    MAX_WAITING,
    REFRESH_S,
    ExternalHosts,
    forbidden,
)

KEY = "url:http://api.example"


class Scene:
    """Hosts with a clock and a resolver of the test's; `told` is what was told, in order."""

    def __init__(self) -> None:
        self.now = 100.0
        self.answers: dict[str, tuple[str, ...] | OSError] = {}
        self.asked: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.heard = asyncio.Event()
        self.failed = asyncio.Event()
        self.hosts = ExternalHosts(
            self.look_up,
            refused=lambda _, ip, port: f"{ip}:{port} is bad" if ip.startswith("169.") else None,
            changed=lambda key: self.tell("changed", key),
            expired=lambda key: self.tell("expired", key),
            forgotten=lambda key: self.tell("forgotten", key),
            now=lambda: self.now,
        )

    def tell(self, what: str, key: str) -> None:
        self.told.append((what, key))
        self.heard.set()

    async def look_up(self, host: str, _: int) -> tuple[str, ...]:
        self.asked.append(host)
        found = self.answers.get(host, OSError("no such name"))
        if isinstance(found, OSError):
            self.failed.set()
            raise found
        return found

    async def use(self, key: str = KEY, host: str = "api.example") -> None:
        """Use it, and wait for what comes of that."""
        self.heard.clear()
        self.hosts.use(key, host, 80)
        async with asyncio.timeout(30.0):
            await self.heard.wait()


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.hosts.run())
        await asyncio.sleep(0)
        yield made
        running.cancel()


async def test_host_is_looked_up_once_and_all_its_addresses_count(scene: Scene) -> None:
    scene.answers["api.example"] = ("10.0.0.1", "fd00::1", "10.0.0.1")
    await scene.use()
    assert scene.hosts.addresses(KEY) == ("10.0.0.1:80", "[fd00::1]:80")
    scene.hosts.use(KEY, "api.example", 80)
    assert scene.asked == ["api.example"]
    assert scene.told == [("changed", KEY)]


async def test_failed_lookup_says_why_and_is_repeated_after_a_second(scene: Scene) -> None:
    await scene.use()
    assert scene.hosts.has_failed(KEY)
    assert scene.hosts.error(KEY) == "api.example was not found: no such name"
    scene.hosts.use(KEY, "api.example", 80)
    assert scene.asked == ["api.example"]
    scene.now += AGAIN_S
    scene.answers["api.example"] = ("10.0.0.1",)
    await scene.use()
    assert not scene.hosts.has_failed(KEY)
    assert scene.hosts.addresses(KEY) == ("10.0.0.1:80",)


async def test_addresses_in_use_are_refreshed_and_kept_where_that_fails(scene: Scene) -> None:
    scene.answers["api.example"] = ("10.0.0.1",)
    await scene.use()
    scene.now += REFRESH_S + 1
    scene.hosts.sweep()
    assert scene.told[1:] == [("expired", KEY)]
    scene.answers["api.example"] = ("10.0.0.2",)
    await scene.use()
    assert scene.hosts.addresses(KEY) == ("10.0.0.2:80",)
    scene.now += REFRESH_S + 1
    del scene.answers["api.example"]
    scene.hosts.use(KEY, "api.example", 80)
    async with asyncio.timeout(30.0):
        await scene.failed.wait()
    await asyncio.sleep(0)
    assert scene.hosts.addresses(KEY) == ("10.0.0.2:80",)


async def test_idle_host_is_forgotten(scene: Scene) -> None:
    scene.answers["api.example"] = ("10.0.0.1",)
    await scene.use()
    scene.now += IDLE_S + 1
    scene.hosts.sweep()
    assert scene.told[-1] == ("forgotten", KEY)
    assert scene.hosts.keys == ()


async def test_address_needs_no_lookup(scene: Scene) -> None:
    scene.hosts.use(KEY, "10.0.0.9", 80)
    assert scene.hosts.addresses(KEY) == ("10.0.0.9:80",)
    scene.now += REFRESH_S + 1
    scene.hosts.use(KEY, "10.0.0.9", 80)
    assert (scene.asked, scene.told) == ([], [("changed", KEY)])


async def test_name_that_somebody_else_looks_up_is_known_at_once_and_not_taken_for_idle(scene: Scene) -> None:
    for _ in range(12):
        scene.hosts.use(KEY, "api.example", 80, is_looked_up=False)
        assert scene.hosts.addresses(KEY) == ("api.example:80",)
        scene.now += REFRESH_S + 1
        scene.hosts.sweep()  # has kept decisions made anew, so that it is seen to be in use
    assert scene.told == [("changed", KEY), *[("expired", KEY)] * 12]
    assert scene.asked == []


async def test_refused_addresses_are_left_out(scene: Scene) -> None:
    scene.answers |= {"api.example": ("169.254.169.254", "10.0.0.1"), "meta.example": ("169.254.169.254",)}
    await scene.use()
    assert scene.hosts.addresses(KEY) == ("10.0.0.1:80",)
    await scene.use("other", "meta.example")
    assert scene.hosts.has_failed("other")
    assert scene.hosts.error("other") == "169.254.169.254:80 is bad"


async def test_lookups_that_wait_are_bounded(scene: Scene) -> None:
    async def never(_: str, __: int) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    scene.hosts._lookup = never
    for number in range(MAX_WAITING + 1):
        scene.hosts.use(f"key {number}", f"host-{number}.example", 80)
    assert [scene.hosts.has_failed(f"key {number}") for number in (MAX_WAITING - 1, MAX_WAITING)] == [
        False,
        True,
    ]
    assert scene.hosts.error(f"key {MAX_WAITING}") == "too many hosts are being looked up at once"


async def test_lookup_without_an_end_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.control.external_hosts.LOOKUP_S", 0.01)
    scene = Scene()

    async def never(_: str, __: int) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    scene.hosts._lookup = never
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(scene.hosts.run())
        await asyncio.sleep(0)
        await scene.use()
        running.cancel()
    assert "took longer than" in scene.hosts.error(KEY)
    assert LOOKUP_S == 5.0


@pytest.mark.parametrize(
    ("ip", "port", "words"),
    [
        ("169.254.169.254", 80, "link-local"),
        ("fe80::1", 80, "link-local"),
        ("fd00:ec2::254", 80, "link-local"),
        ("100.100.100.200", 80, "link-local"),
        ("::ffff:169.254.169.254", 80, "link-local"),
        ("64:ff9b::a9fe:a9fe", 80, "link-local"),
        ("2002:a9fe:a9fe::1", 80, "link-local"),
        ("0.0.0.0", 80, "no host"),
        ("::", 80, "no host"),
        ("224.0.0.1", 80, "no host"),
        ("127.0.0.1", 3500, "port of this proxy"),
        ("::1", 3500, "port of this proxy"),
        ("192.0.2.7", 3500, "port of this proxy"),
    ],
)
def test_addresses_that_names_never_lead_to(ip: str, port: int, words: str) -> None:
    found = forbidden(ip, port, own_ports=frozenset({3500}), own_ip="192.0.2.7")
    assert found is not None
    assert words in found


@pytest.mark.parametrize(
    ("ip", "port"), [("10.0.0.1", 80), ("127.0.0.1", 80), ("192.0.2.8", 3500), ("2001:db8::1", 443)]
)
def test_addresses_that_names_may_lead_to(ip: str, port: int) -> None:
    assert forbidden(ip, port, own_ports=frozenset({3500}), own_ip="192.0.2.7") is None
