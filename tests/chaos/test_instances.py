"""Of three instances one is killed, frozen or slow, on both engines: by default no idempotent call fails, and soon all are fast."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.fleet import APP_ID, Instance, fleet
from tests.chaos.judging import AFTER_S, BEFORE_S, BUSY_S, PER_S, QUIET_S, RECOVERY_S, judge, passed
from tests.chaos.load import steady
from tests.integration.mesh.standing import invoke
from tests.support.engines import ENGINES

Hurt = Callable[[Instance], Awaitable[None]]


async def kill_both(one: Instance) -> None:
    one.kill(app=True, sidecar=True)


async def kill_sidecar(one: Instance) -> None:
    one.kill(sidecar=True)


async def kill_app(one: Instance) -> None:
    one.kill(app=True)


async def freeze_both(one: Instance) -> None:
    one.freeze(app=True, sidecar=True)


async def freeze_sidecar(one: Instance) -> None:
    one.freeze(sidecar=True)


async def make_slow(one: Instance) -> None:
    await one.set_mode(delay_ms=200)


_BRIEF = (kill_both, freeze_sidecar)
_LONG = (kill_sidecar, kill_app, freeze_both, make_slow)


@pytest.mark.parametrize("hurt", [*_BRIEF, *(pytest.param(hurt, marks=pytest.mark.soak) for hurt in _LONG)])
@pytest.mark.parametrize("engine", ENGINES)
async def test_one_of_three(engine: str, hurt: Hurt, tmp_path: Path) -> None:
    async with fleet(tmp_path, engine) as made:
        victim = made.instances[0]
        async with steady(made.web.http_port, invoke(APP_ID, "/items"), per_s=PER_S) as load:
            await passed(load, BEFORE_S)
            hurt_at = load.now
            await hurt(victim)
            await passed(load, RECOVERY_S + AFTER_S)
            end = load.now
            victim.thaw(app=victim.app.is_running, sidecar=victim.sidecar.process.is_running)
        judge(load, hurt_at, end, limit_s=BUSY_S if hurt in _BRIEF else QUIET_S)


@pytest.mark.soak
@pytest.mark.parametrize("engine", ENGINES)
async def test_one_is_killed_and_one_freezes(engine: str, tmp_path: Path) -> None:
    async with fleet(tmp_path, engine) as made:
        dead, frozen, _ = made.instances
        async with steady(made.web.http_port, invoke(APP_ID, "/items"), per_s=PER_S) as load:
            await passed(load, BEFORE_S)
            hurt_at = load.now
            await kill_both(dead)
            await freeze_both(frozen)
            await passed(load, RECOVERY_S + AFTER_S)
            end = load.now
            frozen.thaw(app=True, sidecar=True)
        judge(load, hurt_at, end)


RETRIES = """\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: shop}
spec:
  policies:
    retries: {failed: {policy: constant, duration: 10ms, maxRetries: 2, matching: {httpStatusCodes: "503"}}}
  targets: {apps: {shop: {retry: failed}}}
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_one_of_three_answers_with_errors(engine: str, tmp_path: Path) -> None:
    folder = tmp_path / "resources"
    folder.mkdir()
    (folder / "retries.yaml").write_text(RETRIES, encoding="utf-8")
    async with fleet(tmp_path, engine, web=("--resources-path", str(folder))) as made:
        await made.instances[0].set_mode(error_share=0.2)
        async with steady(made.web.http_port, invoke(APP_ID, "/items"), per_s=PER_S) as load:
            await passed(load, 2 * (RECOVERY_S + AFTER_S))
        assert len(load.failures()) <= 0.005 * len(load.calls)
        assert {call.text for call in load.calls} == {"a", "b", "c"}
