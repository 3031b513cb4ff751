"""Three times as many calls as an app has capacity for, on both engines: what it can do is done, and what is let in is not slow."""

import json
from pathlib import Path

import pytest

from tests.chaos.fleet import APP_ID, fleet
from tests.chaos.judging import passed
from tests.chaos.load import Load, percentile, steady
from tests.integration.mesh.standing import invoke
from tests.support.engines import ENGINES

pytestmark = [pytest.mark.soak, pytest.mark.timeout(120)]  # it measures time: for a quiet machine

AT_ONCE = 3
WORK_MS = 60.0
CAPACITY_PER_S = AT_ONCE / WORK_MS * 1e3
BEFORE_S = 2.0
OVERLOAD_S = 5.0
SETTLING_S = 1.0  # until limits that adapt have found theirs
LIMITS = {
    "fixed": {"limit": AT_ONCE, "queue": AT_ONCE, "queueTimeout": "50ms"},
    "adaptive": {"limit": "adaptive", "queue": AT_ONCE, "queueTimeout": "50ms"},
}


def limits(folder: Path, name: str) -> tuple[str, ...]:
    """Flags of the callee's sidecars."""
    folder.mkdir()
    spec = {"inbound": {"concurrency": LIMITS[name]}}
    made = {
        "apiVersion": "postern.dev/v1alpha1",
        "kind": "Traffic",
        "metadata": {"name": "limits"},
        "spec": spec,
    }
    (folder / "limits.yaml").write_text(json.dumps(made), encoding="utf-8")
    return ("--resources-path", str(folder))


async def loaded(port: int, per_s: float, seconds: float) -> Load:
    """What comes of so many calls a second."""
    async with steady(port, invoke(APP_ID, "/work"), per_s=per_s) as load:
        await passed(load, seconds)
    return load


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("engine", ENGINES)
async def test_app_works_at_its_capacity_and_what_is_let_in_is_quick(
    engine: str, limit: str, tmp_path: Path
) -> None:
    async with fleet(tmp_path, engine, shop=limits(tmp_path / "resources", limit), instances=1) as made:
        await made.instances[0].set_mode(delay_ms=WORK_MS, at_once=AT_ONCE)
        usual = await loaded(made.web.http_port, CAPACITY_PER_S / 2, BEFORE_S)
        load = await loaded(made.web.http_port, 3 * CAPACITY_PER_S, OVERLOAD_S)
    settled = load.between(SETTLING_S)
    good = [call for call in settled if call.status == 200]
    refused = [call for call in settled if call.status != 200]
    assert {(call.status, call.error) for call in refused} == {(503, "shed")}
    goodput = len(good) / (OVERLOAD_S - SETTLING_S)
    assert goodput >= 0.85 * CAPACITY_PER_S
    assert percentile(good, 0.99) <= 2 * percentile(usual.calls, 0.99) + 0.05
    assert percentile(refused, 0.5) <= 0.2
