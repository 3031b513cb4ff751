"""Processes that meet in a real Consul agent, postern's and Dapr's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from nameresolution.consul.resolver import MAX_WAITING
from tests.integration.nameresolution.consul import CONSUL, Consul, tls_settings
from tests.integration.nameresolution.dapr_resolver import RESOLVERS, dapr_resolver
from tests.integration.nameresolution.hosts import Node, node
from tests.support.processes import Processes
from tests.support.web_pki import self_signed

pytestmark = pytest.mark.skipif(CONSUL.reason_missing() is not None, reason=str(CONSUL.reason_missing()))
needs_dapr = pytest.mark.skipif(
    RESOLVERS.reason_missing() is not None, reason=str(RESOLVERS.reason_missing())
)
LIVE = {"name": "live", "checkID": "live:${APP_ID}:${DAPR_PORT}", "ttl": "60s", "status": "passing"}


@pytest_asyncio.fixture
async def consul(processes: Processes) -> Consul:
    """An agent that runs."""
    started = Consul(processes)
    await started.start()
    return started


def settings(consul: Consul, **more: object) -> dict[str, Any]:
    """The configuration of a sidecar that registers, with a check that nobody has to answer."""
    return {"client": {"address": consul.address}, "selfRegister": True, "checks": [LIVE], **more}


@asynccontextmanager
async def nodes(root: Path, count: int, configuration: dict[str, Any]) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(node(None, root, "consul", configuration)) for _ in range(count)
        ]


async def test_processes_find_each_other_and_hear_of_changes(consul: Consul, tmp_path: Path) -> None:
    async with nodes(tmp_path, 3, settings(consul)) as (one, two, caller):
        missing = await caller.look_up("cart")
        assert missing["endpoints"] == []
        assert "no instance of cart whose checks pass" in missing["tried"][0]
        await one.do("announce cart 127.0.0.1 4001 i1")
        await caller.expect_endpoints("127.0.0.1:4001")
        await two.do("announce cart ::1 4003 i2")
        await caller.expect_endpoints("127.0.0.1:4001", "[::1]:4003")
        await two.do("withdraw")
        await caller.expect_endpoints("127.0.0.1:4001")
        await two.do("announce cart ::1 4003 i2")
        await caller.expect_endpoints("127.0.0.1:4001", "[::1]:4003")


async def test_registration_is_as_daprs_and_stays_as_failed_unless_told_otherwise(
    consul: Consul, tmp_path: Path
) -> None:
    more = {"tags": ["blue"], "meta": {"team": "shop", "METRICS": "${DAPR_METRICS_PORT}"}}
    async with nodes(tmp_path, 1, settings(consul, **more)) as (one,):
        await one.do("announce cart 127.0.0.1 4001 i1")
        (found,) = await consul.get("/v1/health/service/cart")
        service = found["Service"]
        assert {name: service[name] for name in ("ID", "Service", "Address", "Port", "Tags")} == {
            "ID": "cart-127.0.0.1-4002",
            "Service": "cart",
            "Address": "127.0.0.1",
            "Port": 8080,
            "Tags": ["blue"],
        }
        assert service["Meta"] == {
            "DAPR_PORT": "4001",
            "METRICS": "",
            "POSTERN_INSTANCE": "i1",
            "POSTERN_NAMESPACE": "default",
            "team": "shop",
        }
        assert [check["CheckID"] for check in found["Checks"] if check["ServiceID"]] == ["live:cart:4001"]
        await one.do("withdraw")
        (failed,) = await consul.get("/v1/health/service/cart")
        assert [check["Status"] for check in failed["Checks"] if check["ServiceID"]] == ["critical"]
    async with nodes(tmp_path, 1, settings(consul, selfDeregister=True)) as (one,):
        await one.do("announce cart 127.0.0.1 4001 i1")
        assert len(await consul.get("/v1/health/service/cart?passing")) == 1
        await one.do("withdraw")
        assert await consul.get("/v1/health/service/cart") == []


async def test_instance_whose_check_fails_is_left_out(consul: Consul, tmp_path: Path) -> None:
    async with nodes(tmp_path, 2, settings(consul)) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        await caller.look_up("cart")
        await consul.put("/v1/agent/check/fail/live:cart:4001", {})
        await caller.expect_endpoints()
        await consul.put("/v1/agent/check/pass/live:cart:4001", {})
        await caller.expect_endpoints("127.0.0.1:4001")


async def test_agent_that_comes_late_and_forgets_loses_nobody(processes: Processes, tmp_path: Path) -> None:
    consul = Consul(processes)
    async with nodes(tmp_path, 2, settings(consul)) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        down = await caller.look_up("cart")
        assert down["endpoints"] == []
        assert f"consul: {consul.address}: " in down["tried"][0]
        assert "(fix: see that the agent runs, and its address)" in down["tried"][0]
        await consul.start()
        await caller.expect_endpoints("127.0.0.1:4001")
        await consul.end()
        stale = await caller.expect(lambda words: bool(words.get("stale")))
        assert stale["endpoints"] == ["127.0.0.1:4001"]
        assert "keeping 1 endpoint" in stale["tried"][0]
        await consul.start()
        await caller.expect(
            lambda words: words.get("stale") is False and words["endpoints"] == ["127.0.0.1:4001"],
            timeout_s=30.0,
        )


async def test_more_names_than_queries_at_once_are_all_followed(consul: Consul, tmp_path: Path) -> None:
    count = MAX_WAITING + 8
    async with nodes(tmp_path, 2, settings(consul)) as (one, caller):
        for number in range(count):
            await caller.send(f"want app-{number}")
        unheard = {f"app-{number}" for number in range(count)}
        while unheard:
            unheard.discard((await caller.expect(lambda words: "name" in words))["name"])
        await one.do(f"announce app-{count - 1} 127.0.0.1 4001 i1")
        await caller.expect_endpoints("127.0.0.1:4001")


async def test_registration_of_the_users_own_is_kept_whole(consul: Consul, tmp_path: Path) -> None:
    own = {
        "name": "${APP_ID}",
        "id": "own-${DAPR_HTTP_PORT}",
        "address": "${HOST_ADDRESS}",
        "port": 9,
        "weights": {"passing": 7, "warning": 1},
        "check": {"name": "live", "ttl": "60s", "status": "passing"},
    }
    configuration = {"client": {"address": f"http://{consul.address}"}, "advancedRegistration": own}
    async with nodes(tmp_path, 2, configuration) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        (found,) = await consul.get("/v1/health/service/cart?passing")
        assert (found["Service"]["ID"], found["Service"]["Port"]) == ("own-4002", 9)
        assert found["Service"]["Weights"] == {"Passing": 7, "Warning": 1}
        assert (await caller.look_up("cart"))["endpoints"] == ["127.0.0.1:4001"]


async def test_service_without_our_port_is_named(consul: Consul, tmp_path: Path) -> None:
    await consul.put("/v1/agent/service/register", {"Name": "web", "Address": "127.0.0.1", "Port": 80})
    async with nodes(tmp_path, 1, settings(consul)) as (caller,):
        found = await caller.look_up("web")
        assert "web is there, but DAPR_PORT is missing from its meta" in found["tried"][0]


@needs_dapr
@pytest.mark.parametrize("cached", [False, True])
async def test_dapr_and_postern_find_each_other(consul: Consul, tmp_path: Path, *, cached: bool) -> None:
    configuration = settings(consul, selfDeregister=True)
    check = {**LIVE, "checkID": "live:pay"}
    for_dapr = {**configuration, "checks": [check], "useCache": cached}
    async with nodes(tmp_path, 1, configuration) as (ours,):
        await ours.do("announce Cart-A 127.0.0.1 4001 i1")
        async with dapr_resolver("consul", for_dapr, "pay", 4102, app_port=80) as theirs:
            assert await theirs.resolve("Cart-A") == "127.0.0.1:4001"
            assert (await ours.look_up("pay"))["endpoints"] == ["127.0.0.1:4102"]
            await ours.do("withdraw")
            await theirs.close()
            await ours.expect_endpoints()


async def test_instance_of_another_namespace_is_left_out(consul: Consul, tmp_path: Path) -> None:
    async with nodes(tmp_path, 2, settings(consul)) as (one, caller):
        await one.do("announce cart 127.0.0.1 4001 i1")
        assert (await caller.look_up("cart"))["endpoints"] == ["127.0.0.1:4001"]
        await caller.send("identify abc")  # with mutual TLS, which proves a namespace
        await caller.send("want cart.shop")
        other = await caller.expect(lambda words: words.get("namespace") == "shop")
        assert other["endpoints"] == []
        assert "ignored because it is in namespace 'default', not 'shop'" in other["tried"][0]


async def test_agent_over_tls_must_show_the_name_that_is_called(processes: Processes, tmp_path: Path) -> None:
    pem = self_signed(tmp_path / "consul.pem")
    consul = Consul(processes, *tls_settings(pem))
    await consul.start()
    client = {"address": f"https://127.0.0.1:{consul.https_port}", "tlsConfig": {"caFile": str(pem)}}
    trusted = {"client": {**client, "tlsConfig": {"caFile": str(pem), "address": "localhost"}}}
    async with nodes(tmp_path, 1, trusted) as (caller,):
        assert "no instance of cart" in (await caller.look_up("cart"))["tried"][0]
    async with nodes(tmp_path, 1, {"client": client}) as (caller,):
        assert "IP address mismatch" in (await caller.look_up("cart"))["tried"][0]
