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


# What holds a state that threads share or must be told of runs with the native engine's threads, too; the rest has one connection
# and so one thread.
WITH_THREADS = frozenset(
    f"tests.conformance.test_{name}"
    for name in (
        "attempts",
        "authorizers",
        "balancing",
        "cancellation",
        "churn",
        "clusters",
        "deciding",
        "drain",
        "gates",
        "kept_plans",
        "rotation",
        "tls",
    )
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`engine`: the name of the engine under test."""
    if "engine" in metafunc.fixturenames:
        has_threads = "native" in CHOSEN and metafunc.module.__name__ in WITH_THREADS
        metafunc.parametrize("engine", (*CHOSEN, *(("native-threads",) if has_threads else ())))


@pytest.fixture(params=HOPS)
def hops(request: pytest.FixtureRequest) -> str:
    """Through one engine, or through two with mutual TLS between."""
    return str(request.param)


@pytest.fixture(scope="session")
def mint() -> Mint:
    """One certificate authority for all tests: making keys is slow."""
    return Mint()
