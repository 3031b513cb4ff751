"""The commands that people know from Dapr and that look at files: logs, configurations, mtls."""

import json
import stat
from pathlib import Path

from cryptography import x509

from tests.integration.cli.conftest import Commands
from tests.integration.cli.test_run import LISTENING

FILE = """
version: 1
apps:
- appID: cart
  appDirPath: .
  appPort: 0
  command: [PYTHON, APP_FILE]
  daprdLogDestination: file
  appLogDestination: fileAndConsole
"""


async def test_logs_show_what_app_and_sidecar_wrote_and_follow_it(commands: Commands) -> None:
    run = commands.run_file(FILE)
    await run.line(LISTENING)
    code, _ = await commands.done("wait", "cart", "--timeout", "20s")
    assert code == 0
    code, output = await commands.done("logs", "cart")
    assert code == 0, output
    assert "app | listening on" in output
    assert "sidecar | time=" in output
    assert (await commands.done("logs", "-a", "cart"))[0] == 0
    code, output = await commands.done("logs", "cart", "--app", "--tail", "1")
    assert (code, output.startswith("listening on"), len(output.splitlines())) == (0, True, 1)
    following = commands.start("logs", "cart", "--app", "-f", "--tail", "1")
    await following.line("listening on")
    written = next(iter((commands.folder / ".dapr" / "logs").glob("cart_app_*.log")))
    with written.open("a") as file:
        file.write("news \x1b[31mred\n")
        file.flush()
        line = await following.line("news")
    assert "\x1b" not in line.string
    await following.end()


async def test_logs_that_are_in_no_file_say_where_they_are(commands: Commands) -> None:
    run = commands.run("cart", "--app-port=0")
    await run.line(LISTENING)
    code, output = await commands.done("logs", "cart")
    assert (code, "logs into no file, but to the terminal" in output) == (1, True)
    code, output = await commands.done("logs", "nobody")
    assert (code, "nobody: no such app runs here" in output) == (1, True)
    code, output = await commands.done("logs", "cart", "--app", "--sidecar")
    assert (code, "--app and --sidecar are each alone" in output) == (2, True)


async def test_configurations_are_those_that_sidecars_have_read(commands: Commands) -> None:
    code, output = await commands.done("configurations")
    assert (code, "no sidecar runs in" in output) == (0, True)
    path = commands.folder / "c.yaml"
    path.write_text(
        'kind: Configuration\nmetadata: {name: shop}\nspec: {tracing: {samplingRate: "1"}, metrics: {enabled: false}}\n'
    )
    run = commands.run("cart", "--app-port=0", "--config", str(path))
    await run.line(LISTENING)
    code, output = await commands.done("configurations", "-o", "json")
    (row,) = json.loads(output)
    assert (row["name"], row["tracingEnabled"], row["metricsEnabled"]) == ("shop", True, False)
    assert (row["apps"], row["path"]) == (["cart"], str(path))
    code, output = await commands.done("configurations", "-n", "other", "-o", "json")
    assert (code, json.loads(output)) == (0, [])
    code, output = await commands.done("configurations")
    assert (code, output.split()[:2], "shop" in output) == (0, ["NAME", "TRACING-ENABLED"], True)


async def test_mtls_tells_who_uses_it_until_when_and_exports_the_authority(
    secured: Commands, tmp_path: Path
) -> None:
    run = secured.run("cart", "--app-port=0")
    await run.line(LISTENING)
    code, _ = await secured.done("wait", "cart", "--timeout", "20s")
    assert code == 0
    code, output = await secured.done("mtls")
    assert (code, "spiffe://public/ns/default/cart" in output) == (0, True), output
    folder = tmp_path / "out"
    code, output = await secured.done("mtls", "export", "-o", str(folder))
    assert code == 0, output
    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "issuer.crt", "issuer.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    root = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    code, output = await secured.done("mtls", "expiry")
    assert (code, output.startswith("root certificate expires in ")) == (0, True), output
    assert f"{root.not_valid_after_utc:%Y-%m-%d %H:%M} UTC" in output.splitlines()[0]
    code, output = await secured.done("mtls", "export", "-o", str(folder))
    assert (code, "ca.crt is there already" in output) == (1, True)


async def test_mtls_without_an_authority_says_where_one_would_be(commands: Commands) -> None:
    for words in (("mtls", "expiry"), ("mtls", "export", "-o", "out")):
        code, output = await commands.done(*words)
        assert (code, "no local authority in" in output) == (1, True), output
