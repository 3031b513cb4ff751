"""The engine under test, and the loop it runs on."""

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.conformance.harness import CHOSEN, HOPS
from tests.conformance.identities import Mint


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop as in production; POSTERN_TEST_LOOP=asyncio runs the suite on asyncio's own loop."""
    if os.environ.get("POSTERN_TEST_LOOP") == "asyncio":
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=CHOSEN)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine under test."""
    return str(request.param)


@pytest.fixture(params=HOPS)
def hops(request: pytest.FixtureRequest) -> str:
    """Through one engine, or through two with mutual TLS between."""
    return str(request.param)


@pytest.fixture(scope="session")
def mint() -> Mint:
    """One certificate authority for all tests: making keys is slow."""
    return Mint()
