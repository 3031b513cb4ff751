"""`postern run -f`: many apps as one."""

import json
import signal

from tests.integration.cli.conftest import Commands

BOTH = """
version: 1
name: shop
apps:
  - appID: cart
    appDirPath: .
    appPort: 0
    command: [PYTHON, APP_FILE]
    upstreams: {pay: 0}
    appLogDestination: console
    daprdLogDestination: console
  - appID: pay
    appDirPath: .
    appPort: 0
    command: [PYTHON, APP_FILE]
    dependsOn: [cart]
    env: {URL: "http://localhost:${DAPR_HTTP_PORT}"}
    appLogDestination: fileAndConsole
    daprdLogDestination: file
"""


async def test_apps_of_a_run_file_call_each_other_and_are_listed_and_stopped(secured: Commands) -> None:
    run = secured.run_file(BOTH)
    await run.line(r"^cart \| listening")
    await run.line(r"^pay  \| listening")
    await run.line(r"^cart \| env PAY_ADDR=localhost:[1-9]")

    for name in ("cart", "pay"):
        assert (await secured.done("wait", name, "--timeout=40s"))[0] == 0

    code, output = await secured.done("invoke", "-a", "cart", "--from", "cart", "-m", "via/pay", "-v", "GET")
    assert code == 0
    assert "200 pay GET /hello" in output

    code, output = await secured.done("list", "-o", "json")
    rows = {row["appId"]: row for row in json.loads(output)}
    assert set(rows) == {"cart", "pay"}
    assert rows["cart"]["cliPid"] == run.pid
    assert rows["cart"]["appPid"] > 0
    assert rows["cart"]["runTemplateName"] == "shop"
    assert rows["cart"]["status"] == "running"
    assert "pay_app_" in rows["pay"]["appLogPath"]

    logs = sorted(path.name for path in (secured.folder / ".dapr" / "logs").iterdir())
    assert len(logs) == 2
    app_log = next(path for path in (secured.folder / ".dapr" / "logs").iterdir() if "_app_" in path.name)
    assert "listening on" in app_log.read_text()

    code, output = await secured.done("stop", "-f", ".")
    assert code == 0
    assert await run.ended(timeout_s=20.0) == 143
    assert (await secured.done("list", "-o", "json"))[1].strip() == "[]"


async def test_stop_of_one_app_leaves_the_others(commands: Commands) -> None:
    run = commands.run_file(BOTH)
    await run.line(r"^pay  \| listening")
    code, _ = await commands.done("stop", "pay")
    assert code == 0
    await run.line("pay: stopped from outside")
    assert run.is_running
    code, output = await commands.done("list", "-o", "json")
    assert [row["appId"] for row in json.loads(output)] == ["cart"]
    assert await run.end(timeout_s=20.0) == 143


async def test_hangup_reloads_every_sidecar_and_ends_nothing(commands: Commands) -> None:
    policy = commands.folder / "policy.yaml"
    policy.write_text("kind: Configuration\nspec: {accessControl: {defaultAction: allow}}\n")
    configured = BOTH.replace("upstreams: {pay: 0}", "configFilePath: policy.yaml")
    run = commands.run_file(configured.replace("daprdLogDestination: file", "daprdLogDestination: console"))
    await run.line(r"^pay  \| listening")
    for name in ("cart", "pay"):
        assert (await commands.done("wait", name, "--timeout=40s"))[0] == 0
    before = json.loads((await commands.done("list", "-o", "json"))[1])
    run.send_signal(signal.SIGHUP)
    await run.line(r"^cart .*policies reloaded")
    await run.line(r"^pay .*nothing to reload")
    after = json.loads((await commands.done("list", "-o", "json"))[1])
    ids = [[(row["daprdPid"], row["appPid"]) for row in rows] for rows in (before, after)]
    assert ids[0] == ids[1]
    assert len(after) == 2
    assert await run.end(timeout_s=20.0) == 143


FAILING = """
version: 1
apps:
  - {appID: cart, appDirPath: ., command: [sh, -c, "echo up; exec sleep 300"], appLogDestination: console, daprdLogDestination: console}
  - {appID: pay, appDirPath: ., command: [sh, -c, "exit 5"], dependsOn: [cart], appLogDestination: console, daprdLogDestination: console}
"""


async def test_failing_app_fails_the_run_loudly(commands: Commands) -> None:
    run = commands.run_file(FAILING)
    assert await run.ended(timeout_s=40.0) == 5
    assert "✗ pay: app failed with exit code 5" in run.output
    assert "✓ cart: stopped" in run.output


async def test_failing_app_leaves_the_others_when_asked_to_keep_going(commands: Commands) -> None:
    run = commands.run_file(FAILING.replace("exec sleep 300", "sleep 4"), "--keep-going")
    assert await run.ended(timeout_s=40.0) == 3
    assert "✗ pay: app failed with exit code 5" in run.output
    assert "✓ cart: app ended" in run.output


async def test_fault_in_the_run_file_starts_nothing(commands: Commands) -> None:
    run = commands.run_file(BOTH.replace("dependsOn", "dependOn"))
    assert await run.ended(timeout_s=20.0) == 2
    assert "did you mean dependsOn?" in run.output
    assert "listening" not in run.output
