"""No call of a stock client to a stock server fails between two sidecars that doesn't fail direct."""

from itertools import product

import pytest

from tests.conformance.harness import CHOSEN
from tests.stock.programs import (
    CONNECT,
    CONNECT_TO_GRPC,
    PROGRAMS,
    WEB,
    call,
    expected,
    failures,
    reason_missing,
    serve,
)
from tests.support.mesh import Mesh
from tests.support.ports import free_port

# Each client once, each server once. Not among them, as they fail direct: tonic ends the connection of a grpc-go client that has ended
# calls which it answered early (ENHANCE_YOUR_CALM, too_many_resets), and grpc-js waits for its deadline with it now and then.
COVER = (("go", "java"), ("java", "rust"), ("rust", "node"), ("node", "python"), ("python", "go"))
ENGINES = tuple(name for name in CHOSEN if name in {"portable", "native"})


async def through_sidecars(
    mesh: Mesh,
    engine: str,
    pair: tuple[str, str],
    *,
    count: int,
    flight: int,
    within_s: float,
    app_protocol: str = "grpc",
) -> None:
    """Call through two sidecars, and direct only if a call failed: what fails there as well says nothing about us."""
    client, server = pair
    if missing := reason_missing(client) or reason_missing(server):
        pytest.skip(missing)
    port = await serve(mesh.processes, server)
    flags = ("--engine", engine)
    await mesh.sidecar("server", app_port=port, app_protocol=app_protocol, flags=flags)
    upstream = free_port()
    await mesh.sidecar("client", flags=(*flags, "--upstream", f"server={upstream}"))
    ended = await call(mesh.processes, client, upstream, count=count, flight=flight, within_s=within_s)
    if ended == expected(client, count):
        return
    assert client not in {WEB, CONNECT_TO_GRPC}, failures(ended)  # there is no direct way
    direct = failures(await call(mesh.processes, client, port, count=count, flight=flight, within_s=within_s))
    worse = {kind: told for kind, told in failures(ended).items() if kind not in direct}
    assert not worse, f"{worse}\nand direct: {direct}"


@pytest.mark.parametrize("pair", COVER, ids="-".join)
@pytest.mark.parametrize("engine", ENGINES)
async def test_no_call_fails_that_does_not_fail_direct(
    mesh: Mesh, engine: str, pair: tuple[str, str]
) -> None:
    await through_sidecars(mesh, engine, pair, count=150, flight=16, within_s=50)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("client", [WEB, pytest.param(CONNECT_TO_GRPC, marks=pytest.mark.soak)])
async def test_grpc_web_reaches_a_grpc_server(mesh: Mesh, engine: str, client: str) -> None:
    await through_sidecars(mesh, engine, (client, "python"), count=50, flight=4, within_s=50)


@pytest.mark.parametrize("engine", ENGINES)
async def test_connect_and_grpc_web_pass_to_a_server_that_speaks_them(mesh: Mesh, engine: str) -> None:
    pair = (CONNECT, CONNECT)
    await through_sidecars(mesh, engine, pair, count=10, flight=4, within_s=50, app_protocol="http")


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "pair", [pair for pair in product(PROGRAMS, PROGRAMS) if pair not in COVER], ids="-".join
)
@pytest.mark.parametrize("engine", ENGINES)
async def test_no_call_between_any_two_fails_that_does_not_fail_direct(
    mesh: Mesh, engine: str, pair: tuple[str, str]
) -> None:
    await through_sidecars(mesh, engine, pair, count=500, flight=16, within_s=100)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("flight", [1, 64], ids=["trickle", "burst"])
@pytest.mark.parametrize("pair", COVER, ids="-".join)
@pytest.mark.parametrize("engine", ENGINES)
async def test_no_call_of_many_fails_that_does_not_fail_direct(
    mesh: Mesh, engine: str, pair: tuple[str, str], flight: int
) -> None:
    await through_sidecars(mesh, engine, pair, count=20_000, flight=flight, within_s=1_700)
