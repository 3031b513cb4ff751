"""`postern run`: one app with its sidecar, from start to every kind of end."""

import asyncio
import re
import signal
import sys

import psutil

from tests.integration.cli.conftest import Commands
from tests.integration.mesh.standing import eventually
from tests.support.http_client import request
from tests.support.ports import free_port
from tests.support.processes import Process

LISTENING = r"listening on (\d+) as process (\d+)"
READY = r"sidecar on HTTP (\d+), gRPC (\d+)"


async def app_of(run: Process) -> psutil.Process:
    """The app's process, once it listens."""
    found = await run.line(LISTENING)
    return psutil.Process(int(found[2]))


def sidecar_of(run: Process) -> psutil.Process:
    """The sidecar's process."""
    children = psutil.Process(run.pid).children()
    return next(child for child in children if "proxy" in child.cmdline())


async def gone(*watched: psutil.Process, within_s: float = 45.0) -> bool:
    """Wait until all of them have ended."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, list(watched), timeout=within_s)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


async def test_run_gives_the_app_the_ports_that_the_sidecar_took(commands: Commands) -> None:
    run = commands.run("cart", "--upstream=pay", "--upstream=stock=0")
    await run.line(LISTENING)
    http, grpc = (await run.line(READY)).groups()
    for wanted in (
        f"DAPR_HTTP_PORT={http}",
        f"DAPR_GRPC_PORT={grpc}",
        "APP_ID=cart",
        r"PAY_ADDR=localhost:\d+",
    ):
        await run.line(rf"^cart \| env {wanted}")
    response = await request(int(http), "GET", "/v1.0/healthz/outbound", timeout_s=5.0)
    assert response.status in {204, 500}
    assert await run.end(timeout_s=20.0) == 143


async def test_run_says_once_that_it_uses_the_users_own_files_and_does_without_their_zipkin(
    commands: Commands,
) -> None:
    folder = commands.folder / "home" / ".dapr"
    (folder / "components").mkdir(parents=True)
    closed = free_port()
    (folder / "config.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: daprConfig}\n"
        'spec: {tracing: {samplingRate: "1", zipkin: '
        f'{{endpointAddress: "http://localhost:{closed}/api/v2/spans"}}}}}}\n'
    )
    (folder / "components" / "store.yaml").write_text(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec: {type: state.redis, version: v1}\n"
    )
    ports = ("--dapr-http-port=0", "--dapr-grpc-port=0", "--metrics-port=0", "--app-port=0", "--drain=0s")
    app = ("--", sys.executable, str(commands.app))
    run = commands.start(
        "run", "--app-id=cart", *ports, *commands.flags, *app, env={"HOME": str(folder.parent)}
    )
    http, _ = (await run.line(READY)).groups()

    async def is_answered() -> bool:
        return (await request(int(http), "GET", "/v1.0/invoke/cart/method/hello")).status == 200

    await eventually(is_answered)
    await run.line("spans are not exported")
    assert await is_answered()
    assert await run.end(timeout_s=20.0) == 143
    for path in (folder / "config.yaml", folder / "components"):
        assert run.output.count(f"· {path} is used, as no flag or key names another") == 1


async def test_run_returns_the_apps_exit_code(commands: Commands) -> None:
    run = commands.run("cart", command=("sh", "-c", "echo out; echo err >&2; exit 7"))
    assert await run.ended(timeout_s=30.0) == 7
    assert "cart | out" in run.output
    assert "cart | err" in run.output
    assert "app failed with exit code 7" in run.output


async def test_run_of_an_app_killed_by_a_signal_returns_128_and_its_number(commands: Commands) -> None:
    run = commands.run("cart", command=("sh", "-c", "kill -KILL $$"))
    assert await run.ended(timeout_s=30.0) == 137


async def test_run_ends_well_when_the_app_does(commands: Commands) -> None:
    run = commands.run("cart", command=("true",))
    assert await run.ended(timeout_s=30.0) == 0


async def test_run_of_a_missing_command_says_so(commands: Commands) -> None:
    run = commands.run("cart", command=("no-such-command",))
    assert await run.ended(timeout_s=30.0) == 127
    assert "can't start 'no-such-command'" in run.output


async def test_run_with_bad_flags_starts_nothing(commands: Commands) -> None:
    code, output = await commands.done("run", "--app-id=a.b", "--app-prt=1", "--", "echo", "started")
    assert code == 2
    assert "--app-id" in output
    assert "did you mean --app-port" in output
    assert "| started" not in output


async def test_interrupt_ends_app_and_sidecar_in_order(commands: Commands) -> None:
    run = commands.run("cart")
    app, sidecar = await app_of(run), sidecar_of(run)
    run.send_signal(signal.SIGINT)
    assert await run.ended(timeout_s=30.0) == 130
    # The app was told while the sidecar's outbound side still answered.
    assert re.search(r"cart \| term: sidecar says (204|500)", run.output)
    assert await gone(app, sidecar)
    assert "Traceback" not in run.output


async def test_second_interrupt_ends_at_once(commands: Commands) -> None:
    stubborn = (sys.executable, str(commands.app), "stubborn")
    run = commands.run("cart", "--dapr-block-shutdown-duration", "1h", command=stubborn)
    app, sidecar = await app_of(run), sidecar_of(run)
    run.send_signal(signal.SIGINT)
    await run.line("once more to end at once")
    run.send_signal(signal.SIGINT)
    assert await run.ended() == 130  # not in an hour
    assert await gone(app, sidecar)


async def test_app_that_ignores_the_end_is_killed(commands: Commands) -> None:
    run = commands.run("cart", command=(sys.executable, str(commands.app), "stubborn"))
    app = await app_of(run)
    assert await run.end(timeout_s=25.0) == 143
    assert await gone(app)


async def test_killed_command_leaves_no_orphans(commands: Commands) -> None:
    run = commands.run("cart")
    app, sidecar = await app_of(run), sidecar_of(run)
    run.kill()
    assert await gone(app, sidecar)


async def test_dead_sidecar_ends_the_app_and_fails(commands: Commands) -> None:
    run = commands.run("cart")
    app, sidecar = await app_of(run), sidecar_of(run)
    sidecar.kill()
    assert await run.ended(timeout_s=30.0) == 1
    assert "sidecar died with exit code 137" in run.output
    assert await gone(app)


async def test_sidecar_that_can_not_start_fails_with_its_reason(commands: Commands) -> None:
    first = commands.run("cart", "--dapr-http-port=0")
    http = (await first.line(READY))[1]
    second = commands.run("pay", f"--dapr-http-port={http}")
    assert await second.ended(timeout_s=40.0) == 1
    assert http in second.output
    assert "ended before it was ready" in second.output
    assert "Traceback" not in second.output


async def test_children_of_the_app_end_with_it(commands: Commands) -> None:
    run = commands.run("cart", command=("sh", "-c", "sleep 300 & echo child $!; wait"))
    child = psutil.Process(int((await run.line(r"child (\d+)"))[1]))
    assert await run.end(timeout_s=20.0) == 143
    assert await gone(child)


async def test_output_whose_reader_left_ends_the_run(commands: Commands) -> None:
    command = f"{sys.executable} -I -m proxy.cli run -a cart --drain 0s --insecure-plaintext"
    script = f"{command} -- sh -c 'while :; do echo line || exit; done' | head -1"
    process = commands.mesh.processes.start(
        ["sh", "-c", script], name="run | head", env={"POSTERN_HOME": str(commands.mesh.root)}
    )
    assert await process.ended(timeout_s=30.0) == 0


async def test_two_roots_on_one_host_do_not_meet(commands: Commands) -> None:
    other = commands.mesh.root / "other"
    first = commands.run("cart")
    second = commands.run("cart", f"--runtime-path={other}")
    await first.line(READY)
    await second.line(READY)
    code, listed = await commands.done("list", "-o", "json")
    assert code == 0
    assert listed.count('"appId": "cart"') == 1
    code, _ = await commands.done("stop", "cart", "--runtime-path", str(other))
    assert code == 0
    assert await second.ended(timeout_s=20.0) == 143
    assert first.is_running
    assert await first.end(timeout_s=20.0) == 143
