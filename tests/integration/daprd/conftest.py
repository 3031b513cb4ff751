"""The mixed mesh that tests share, for each engine and each sentry."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.daprd.mixed import Mixed, mixed
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
