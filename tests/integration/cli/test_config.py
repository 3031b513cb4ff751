"""`postern config show` of real sidecars: what decided each setting, and no secret."""

import json

from tests.integration.cli.conftest import Commands

CONFIGURATION = """\
kind: Configuration
metadata: {name: c}
spec:
  tracing:
    samplingRate: "1"
    zipkin: {endpointAddress: "http://127.0.0.1:1/spans?code=hunter2"}
"""


async def test_each_setting_has_its_source_and_secrets_stay_inside(commands: Commands) -> None:
    mesh = commands.mesh
    file = mesh.write("c.yaml", CONFIGURATION)
    await mesh.sidecar(
        "cart",
        flags=("--insecure-plaintext", f"--config={file}"),
        env={"DAPR_API_TOKEN": "hunter2", "POSTERN_THREADS": "2"},
        until_ready=False,
    )
    code, output = await commands.done("config", "show", "cart", "-o", "json")
    assert code == 0, output
    assert "hunter2" not in output
    (told,) = json.loads(output)
    rows = {row["name"]: row for row in told["settings"]}
    assert (rows["DAPR_API_TOKEN"]["value"], rows["DAPR_API_TOKEN"]["source"]) == ("(set)", "environment")
    assert (rows["threads"]["value"], rows["threads"]["by"]) == (2, "POSTERN_THREADS")
    assert (rows["app-id"]["source"], rows["stall-timeout"]["source"]) == ("flag", "default")
    assert rows["dapr-http-port"]["value"] > 0
    fields = {row["name"]: row for row in told["configuration"]}
    assert fields["spec.tracing.samplingRate"]["by"] == f"{file}:5"
    assert fields["spec.tracing.zipkin.endpointAddress"]["value"] == "http://127.0.0.1:1/spans?(removed)"

    code, output = await commands.done("config", "show")
    assert code == 0
    assert "cart.default\nSETTING" in output
    assert "environment POSTERN_THREADS" in output
    assert "stall-timeout" not in output
    code, output = await commands.done("config", "show", "-o", "wide")
    assert "stall-timeout" in output


async def test_key_of_a_run_file_is_named_with_its_line(commands: Commands) -> None:
    running = commands.run_file(
        """
        version: 1
        common: {logLevel: warn}
        apps:
          - appID: cart
            appDirPath: .
            appPort: 0
            command: [PYTHON, APP_FILE]
        """,
        "--insecure-plaintext",
    )
    await running.line("listening on", timeout_s=60.0)
    code, output = await commands.done("config", "show", "cart", "-o", "json")
    assert code == 0, output
    rows = {row["name"]: row for row in json.loads(output)[0]["settings"]}
    assert rows["app-id"]["by"] == f"{commands.folder / 'dapr.yaml'}:5 (appID)"
    assert (rows["log-level"]["source"], rows["log-level"]["by"].endswith(":3 (logLevel)")) == (
        "run file",
        True,
    )
    assert rows["enable-mtls"]["by"] == "--insecure-plaintext"
    await running.end()
