"""Fixtures for tests with real processes: apps under test and a mesh of sidecars."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import netns
from tests.support.apps import App, start_grpc_app, start_http_app
from tests.support.mesh import Mesh, SharedSentry, shared_sentry
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


# Where files take long: these begin first, so that no worker has one of them left when the others are done.
_LONGEST_FIRST = ("integration/examples/", "integration/", "chaos/", "stock/", "routers/", "conformance/", "")
_TESTS = Path(__file__).parent


def _rank(item: pytest.Item) -> int:
    name = item.path.relative_to(_TESTS).as_posix()
    return next(rank for rank, folder in enumerate(_LONGEST_FIRST) if name.startswith(folder))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which workers take files, at random within each folder."""
    items.sort(key=_rank)


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


@pytest.fixture(scope="session")
def shared() -> Iterator[SharedSentry]:
    """A sentry for the meshes of this worker that last for one test and leave it alone: one costs as much as a sidecar."""
    with shared_sentry() as started:
        yield started


@pytest.fixture
async def mesh(tmp_path: Path, shared: SharedSentry) -> AsyncIterator[Mesh]:
    """A mesh without sidecars yet; see `Mesh.sidecar`. One that is to have a sentry of its own calls `start_sentry` first."""
    async with Mesh(tmp_path, shared=shared) as started:
        yield started


@pytest.fixture
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two network namespaces on one network; skipped where they cannot be made."""
    if reason := netns.unavailable_reason():
        pytest.skip(reason)
    with netns.joined_hosts(2) as (first, second):
        yield first, second
