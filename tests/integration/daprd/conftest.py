"""The mixed mesh that tests share, for each engine and each sentry."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.daprd.mixed import Mixed, mixed
from tests.integration.daprd.skew import Skew, skew
from tests.support.engines import ENGINES


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> str:
    """The engine of our sidecars."""
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["postern", "dapr"])
async def mesh_of_both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, engine: str
) -> AsyncIterator[Mixed]:
    """One for the module, each engine and each sentry."""
    files = tmp_path_factory.mktemp("mixed")
    async with mixed(files, engine, str(request.param)) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def among_releases(tmp_path_factory: pytest.TempPathFactory, engine: str) -> AsyncIterator[Skew]:
    """One for the module and each engine. Its stand-ins live in the module's loop, and so must the tests."""
    async with skew(tmp_path_factory.mktemp("skew"), engine) as found:
        yield found
