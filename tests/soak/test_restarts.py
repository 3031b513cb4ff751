"""A hundred rolling restarts under load: no call fails."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.mesh.rolling import rolling
from tests.integration.mesh.standing import Standing, standing

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_800)]

RESTARTS = 100


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """The module's mesh."""
    async with standing(tmp_path_factory.mktemp("soak")) as started:
        yield started


async def test_a_hundred_restarts_fail_no_call(mesh: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    load = await rolling(mesh, RESTARTS)
    with capsys.disabled():
        print(f"\n{RESTARTS} restarts of an HTTP and of a gRPC app under {load.calls} calls")  # noqa: T201
    assert load.failures == []
