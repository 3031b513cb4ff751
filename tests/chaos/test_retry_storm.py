"""A callee that fails every call while its callers retry, on both engines: what retries add to the load stays within their budget."""

import json
from pathlib import Path

import pytest

from tests.chaos.fleet import APP_ID, fleet
from tests.chaos.judging import passed
from tests.chaos.load import steady
from tests.integration.mesh.standing import invoke
from tests.support.engines import ENGINES

MAX_RETRIES = 3  # of a call, by its policy: three times the load, were there no budget
RATIO = 0.2  # of the budget that holds where nothing is written
MIN_PER_S = 10.0
TTL_S = 10.0


def retrying(folder: Path) -> tuple[str, ...]:
    """Flags of the caller's sidecar."""
    folder.mkdir()
    policy = {"policy": "constant", "duration": "10ms", "maxRetries": MAX_RETRIES}
    spec = {"policies": {"retries": {"often": policy}}, "targets": {"apps": {APP_ID: {"retry": "often"}}}}
    made = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Resiliency",
        "metadata": {"name": "often"},
        "spec": spec,
    }
    (folder / "often.yaml").write_text(json.dumps(made), encoding="utf-8")
    return ("--resources-path", str(folder))


async def storm(engine: str, files: Path, *, per_s: float, seconds: float) -> None:
    """So many calls a second for so long; retries are counted where they arrive."""
    async with fleet(files, engine, web=retrying(files / "resources"), instances=1) as made:
        (shop,) = made.instances
        await shop.set_mode(error_share=1.0)
        before = await shop.seen()
        async with steady(made.web.http_port, invoke(APP_ID, "/work"), per_s=per_s) as load:
            await passed(load, seconds)
        took_s = load.now
        retries = await shop.seen() - before - len(load.calls)
    assert {(call.status, call.text) for call in load.calls} == {(503, shop.name)}
    reserve = MIN_PER_S * TTL_S  # there from the beginning
    assert retries <= RATIO * len(load.calls) + reserve + MIN_PER_S * took_s
    assert retries >= min(reserve, MAX_RETRIES * len(load.calls))


@pytest.mark.parametrize("engine", ENGINES)
async def test_retries_of_calls_that_all_fail_stay_within_their_budget(engine: str, tmp_path: Path) -> None:
    await storm(engine, tmp_path, per_s=60.0, seconds=4.0)


@pytest.mark.soak
@pytest.mark.timeout(180)
@pytest.mark.parametrize("engine", ENGINES)
async def test_long_storm_of_retries_stays_within_its_budget(engine: str, tmp_path: Path) -> None:
    await storm(engine, tmp_path, per_s=150.0, seconds=45.0)
