"""`postern bundle` of real sidecars: everything that helps, and no secret however it is named."""

import tarfile
from pathlib import Path

from tests.integration.cli.conftest import Commands
from tests.support.http_client import request

SECRET = "hunter2"
CONFIGURATION = f"""\
kind: Configuration
metadata: {{name: c}}
spec:  # the password is {SECRET}
  tracing: {{samplingRate: "0", zipkin: {{endpointAddress: "http://u:{SECRET}@127.0.0.1:1/?k={SECRET}"}}}}
"""
RESOURCES = f"""\
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: {{name: "pay"}}
spec:
  baseUrl: https://api.example.com
  headers: [{{name: X-Plain, value: {SECRET}}}, {{name: Authorization, value: "Bearer {SECRET}"}}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: state}}
spec: {{type: state.redis, version: v1, metadata: [{{name: redisHost, value: "{SECRET}"}}]}}
"""


async def test_archive_holds_what_helps_and_no_secret(secured: Commands) -> None:
    mesh = secured.mesh
    app = await mesh.http_app()
    config = mesh.write("c.yaml", CONFIGURATION)
    mesh.write("res/r.yaml", RESOURCES)
    log = mesh.files / "side.log"
    flags = (
        f"--config={config}",
        f"--log-file={log}",
        f"--run-command=app --token {SECRET} password={SECRET}",
    )
    await mesh.sidecar(
        "cart",
        app=app,
        flags=(*flags, f"--resources-path={mesh.files / 'res'}"),
        env={"DAPR_API_TOKEN": SECRET, "APP_API_TOKEN": SECRET},
    )
    with log.open("a") as file:
        file.write(f"authorization: Bearer {SECRET}\n")
    mesh.write("res/broken.yaml", f"password: {SECRET}\nx: [")
    path = secured.folder / "b.tar.gz"
    code, output = await secured.done("bundle", "-o", str(path))
    assert code == 0, output
    held = _held(path)
    folder = next(name.partition("/")[0] for name in held if name.startswith("cart.default-"))
    pages = (
        *("status.json", "metadata.json", "endpoints.json", "dump.json", "edges.json", "traces.json"),
        *("config.json", "metrics.txt", "sidecar.log"),
    )
    assert {f"{folder}/{page}" for page in pages} < set(held)
    assert {"README.txt", "version.txt", "check.txt", "check.json"} < set(held)
    assert f"{folder}/configuration/0-c.yaml" in held
    assert "not included" in held[f"{folder}/resources/0-broken.yaml.txt"]
    assert "X-Plain" in held[f"{folder}/resources/1-r.yaml"]
    assert "cart is ready" in held["check.txt"]
    assert "dapr_" in held[f"{folder}/metrics.txt"] or "postern_" in held[f"{folder}/metrics.txt"]
    for name, text in held.items():
        assert SECRET not in text, name
        assert "PRIVATE KEY" not in text, name
        assert name in output


async def test_log_of_a_sidecar_without_a_file_is_what_it_keeps(commands: Commands) -> None:
    await commands.mesh.sidecar("cart")
    path = commands.folder / "b.tar.gz"
    code, output = await commands.done("bundle", "-o", str(path))
    assert code == 0, output
    held = _held(path)
    (log,) = [text for name, text in held.items() if name.endswith("/sidecar.log")]
    assert 'msg="listening"' in log
    (dump,) = [text for name, text in held.items() if name.endswith("/dump.json")]
    assert "retryBudgets" in dump


def _held(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            assert member.isfile()
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("postern-bundle/")] = file.read().decode()
        return found


async def test_what_apps_wrote_to_files_of_postern_run_is_in_it_unless_nobody_wants_it(
    secured: Commands,
) -> None:
    log = secured.mesh.write(
        "cart_app_20260101.log", f"hello\npassword={SECRET}\n" + "x" * 10_000 + "\nlast\n"
    )
    elsewhere = secured.mesh.write("elsewhere", "nothing to see here")
    await secured.mesh.sidecar("cart", flags=(f"--app-log={log}",))
    web = await secured.mesh.sidecar("web")
    named = await request(web.http_port, "PUT", "/v1.0/metadata/appLogPath", body=str(elsewhere).encode())
    assert named.status == 204
    path = secured.folder / "b.tar.gz"
    code, output = await secured.done("bundle", "-o", str(path))
    assert code == 0, output
    texts = {name.partition(".")[0]: text for name, text in _held(path).items() if name.endswith("/app.log")}
    assert texts.keys() == {"cart"}
    lines = texts["cart"].splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("hello", "password=(removed)", "last")
    assert len(lines[2]) == 4096
    code, _ = await secured.done("bundle", "-o", f"{path}.2", "--no-app-logs")
    assert code == 0
    assert not [name for name in _held(secured.folder / "b.tar.gz.2") if name.endswith("/app.log")]
