"""Watching health by gRPC's protocol, as the handler does it."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from proxy.api.admin import Health as SidecarHealth
from proxy.api.dapr.receiving import Context
from proxy.api.dapr.service import SERVICE
from proxy.api.dapr.standard import WATCHES, Health

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


class Api:
    """Of a sidecar whose health the test sets."""

    def __init__(self, *parts: str) -> None:
        self.health = SidecarHealth(parts)

    def metadata(self) -> Mapping[str, Any]:
        return {}

    def is_ready(self, *, with_app: bool) -> bool:
        return not self.health.missing(but=() if with_app else ("app",))

    def readiness(self, *, with_app: bool) -> AsyncGenerator[bool]:
        return self.health.changes(but=() if with_app else ("app",))

    def put_metadata(self, key: str, value: str) -> str | None:
        raise NotImplementedError

    def shut_down(self, *, force: bool) -> None:
        raise NotImplementedError


class AbortedError(Exception):
    """As a server ends a call."""


class Caller:
    """A call's context, as far as health asks it."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise AbortedError(code, details)


CONTEXT = cast("Context", Caller())


async def test_watch_tells_the_state_and_each_change_and_ends_with_the_sidecar() -> None:
    api = Api("app")
    health = Health(api)
    whole = health.watch(HealthCheckRequest(), CONTEXT)
    calling_out = health.watch(HealthCheckRequest(service=SERVICE), CONTEXT)
    assert (await anext(whole)).status == NOT_SERVING
    assert (await anext(calling_out)).status == SERVING
    api.health.ready("app")
    assert (await anext(whole)).status == SERVING
    api.health.leave()
    assert [answer.status async for answer in whole] == [NOT_SERVING]
    assert [answer.status async for answer in calling_out] == [NOT_SERVING]


async def test_watch_of_an_unknown_service_says_so_and_stays() -> None:
    api = Api("app")
    watch = Health(api).watch(HealthCheckRequest(service="shop.Cart"), CONTEXT)
    assert (await anext(watch)).status == HealthCheckResponse.SERVICE_UNKNOWN
    api.health.ready("app")
    api.health.leave()
    assert [answer.status async for answer in watch] == []


async def test_watches_are_limited_and_those_that_ended_do_not_count() -> None:
    health = Health(Api())
    watches = [health.watch(HealthCheckRequest(), CONTEXT) for _ in range(WATCHES)]
    for watch in watches:
        await anext(watch)
    late = health.watch(HealthCheckRequest(), CONTEXT)
    with pytest.raises(AbortedError) as refused:
        await anext(late)
    assert refused.value.args[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    await watches[0].aclose()
    assert (await anext(health.watch(HealthCheckRequest(), CONTEXT))).status == SERVING


async def test_check_answers_once_and_knows_two_names() -> None:
    health = Health(Api("app"))
    assert (await health.check(HealthCheckRequest(), CONTEXT)).status == NOT_SERVING
    assert (await health.check(HealthCheckRequest(service=SERVICE), CONTEXT)).status == SERVING
    with pytest.raises(AbortedError) as unknown:
        await health.check(HealthCheckRequest(service="shop.Cart"), CONTEXT)
    assert unknown.value.args[0] is grpc.StatusCode.NOT_FOUND
