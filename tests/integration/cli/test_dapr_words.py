"""The commands that people know from Dapr and that look at files: logs, configurations, mtls."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from tests.integration.cli.conftest import Commands
from tests.integration.cli.test_run import LISTENING, READY
from tests.integration.mesh.standing import eventually
from tests.support.http_client import request

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
    code, _ = await commands.done("wait", "cart", "--timeout", "40s")
    assert code == 0
    code, output = await commands.done("logs", "cart")
    assert code == 0, output
    assert "app     | listening on" in output
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
    code, output = await commands.done("logs", "cart", "--app")
    assert (code, "kept nowhere" in output, "no lines are kept" in output) == (1, True, True)
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
    code, _ = await secured.done("wait", "cart", "--timeout", "40s")
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


@pytest.mark.parametrize("word", ["renew-certificate", "rnc"])
async def test_renewed_issuer_signs_what_comes_next_and_running_sidecars_go_on(
    secured: Commands, word: str
) -> None:
    run = secured.run("cart", "--app-port=0")
    http, _ = (await run.line(READY)).groups()
    assert (await secured.done("wait", "cart", "--timeout", "40s"))[0] == 0
    authority = secured.mesh.root / "sentry" / "authority"
    before = x509.load_pem_x509_certificate((authority / "issuer.crt").read_bytes())
    code, output = await secured.done("mtls", word, "--valid-until", "30")
    assert (code, "✓ the new issuer lasts until" in output) == (0, True), output
    after = x509.load_pem_x509_certificate((authority / "issuer.crt").read_bytes())
    assert after.serial_number != before.serial_number
    assert (after.not_valid_after_utc - datetime.now(UTC)).days in {29, 30}
    sentry = await secured.mesh.start_sentry()
    await sentry.line("reloaded the changed authority")
    late = secured.run("late", "--app-port=0")
    await late.line(READY)

    async def is_answered() -> bool:
        return (await request(int(http), "GET", "/v1.0/invoke/late/method/hello")).status == 200

    await eventually(is_answered)
    code, output = await secured.done("mtls", word, "--ca-root-certificate", "x")
    assert (code, "belong together" in output) == (2, True), output
    code, output = await secured.done("mtls", word, "--private-key", "nowhere.pem")
    assert (code, "nowhere.pem: No such file" in output) == (1, True), output


async def test_mtls_without_an_authority_says_where_one_would_be(commands: Commands) -> None:
    for words in (("mtls", "expiry"), ("mtls", "export", "-o", "out"), ("mtls", "renew-cert")):
        code, output = await commands.done(*words)
        assert (code, "no local authority in" in output) == (1, True), output
