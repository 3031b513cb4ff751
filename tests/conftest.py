"""Fixtures for tests with real processes: apps under test and a mesh of sidecars."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import netns
from tests.support.apps import App, start_grpc_app, start_http_app
from tests.support.mesh import Mesh
from tests.support.netns import Host
from tests.support.processes import Processes

# Shells have their background jobs ignore SIGINT, and children inherit that: those of the tests are to hear Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# How many inputs a property tries: a few in `make test`, for its time; many in `make nightly`. None is on a clock: a busy machine takes
# the processor away for longer than any deadline that would tell something.
for profile, inputs in {"brief": 50, "nightly": 1_000}.items():
    settings.register_profile(
        profile, max_examples=inputs, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("brief")

# What is shared for longer than a test and costs a start of processes: who uses it runs in one worker, so that it is made once.
SHARED = ("module", "package")
SHARED_BY_ALL = "zipkin"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With parallel workers (pytest-xdist, --dist loadgroup): one group for all tests that share a fixture, none for the rest."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if isinstance(item, pytest.Function) and (group := _shared(item)):
                item.add_marker(pytest.mark.xdist_group(group))


def _shared(item: pytest.Function) -> str:
    if SHARED_BY_ALL in item.fixturenames:
        return SHARED_BY_ALL
    made = (named[-1] for named in item._fixtureinfo.name2fixturedefs.values())
    return next((f"{fixture.baseid}:{fixture.argname}" for fixture in made if fixture.scope in SHARED), "")


@pytest.fixture
def processes() -> Iterator[Processes]:
    """A scope of child processes; the test fails if one is left over."""
    with Processes() as scope:
        yield scope


@pytest.fixture
async def http_app(processes: Processes) -> App:
    """A running HTTP/1.1 app."""
    return await start_http_app(processes)


@pytest.fixture
async def grpc_app(processes: Processes) -> App:
    """A running gRPC app."""
    return await start_grpc_app(processes)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh without sidecars yet; see `Mesh.sidecar`."""
    async with Mesh(tmp_path) as started:
        yield started


@pytest.fixture
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two network namespaces on one network; skipped where they cannot be made."""
    if reason := netns.unavailable_reason():
        pytest.skip(reason)
    with netns.joined_hosts(2) as (first, second):
        yield first, second
