"""The metrics port over TLS and behind a token, as curl and Prometheus scrape it."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.mesh.standing import eventually
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.mesh import Mesh
from tests.support.ports import free_port
from tests.support.tools import tool
from tests.support.web_pki import WebCa

TOKEN = "s3cret.of-the_scraper"


async def curl(*arguments: str) -> tuple[int, str, str]:
    """Exit code, what it wrote and what it complained of."""
    command = [tool("curl"), "--silent", "--show-error", "--max-time", "10", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def write_leaf(mesh: Mesh, authority: WebCa) -> tuple[str, ...]:
    """Flags of a metrics port with a new certificate."""
    certificate, key = authority.leaf("localhost", "127.0.0.1")
    flags = {"cert": certificate, "key": key}
    found = []
    for name, pem in flags.items():
        path = mesh.files / f"{name}.pem"
        (mesh.files / f"{name}.new").write_bytes(pem)
        (mesh.files / f"{name}.new").replace(path)
        found += [f"--metrics-tls-{name}", str(path)]
    return tuple(found)


@pytest.mark.parametrize("engine", ENGINES)
async def test_metrics_are_served_over_tls_to_who_has_the_token(engine: str, mesh: Mesh) -> None:
    first, second = WebCa("first"), WebCa("second")
    for name, authority in (("first", first), ("second", second)):
        (mesh.files / f"{name}.pem").write_bytes(authority.root_pem)
    token = mesh.write("token", f"{TOKEN}\n")
    flags = ("--engine", engine, *write_leaf(mesh, first), "--metrics-token-file", str(token))
    web = await mesh.sidecar("web", flags=flags)
    url = f"https://localhost:{web.metrics_port}/metrics"
    trusting = ("--cacert", str(mesh.files / "first.pem"))
    having = ("-H", f"Authorization: Bearer {TOKEN}")

    code, text, complaint = await curl(*trusting, *having, url)
    assert (code, complaint) == (0, "")
    assert "process_max_fds" in text

    for wrong in ((), ("-H", "Authorization: Bearer other"), ("-u", f"user:{TOKEN}")):
        code, text, _ = await curl(*trusting, *wrong, "-i", url)
        assert code == 0
        assert " 401" in text.splitlines()[0]
        assert "www-authenticate: bearer" in text.lower()
        assert "process_max_fds" not in text
    assert (await curl(*having, url.replace("https", "http")))[0] != 0

    # Both files change while it runs.
    write_leaf(mesh, second)
    token.write_text("another")
    trusting, having = ("--cacert", str(mesh.files / "second.pem")), ("-H", "Authorization: Bearer another")
    url = url.replace("localhost", "127.0.0.1")  # no server name in the handshake
    code, text, complaint = await curl(*trusting, *having, url)
    assert (code, complaint) == (0, "")
    assert "process_max_fds" in text

    # What can't be used changes nothing.
    (mesh.files / "cert.pem").write_text("no certificate")
    token.write_text("")
    assert (await curl(*trusting, *having, url))[0] == 0

    async def both_are_told() -> bool:
        return web.process.output.count("the old ones stay in force") == 2

    await eventually(both_are_told)  # what a process logs comes a moment later
    assert TOKEN not in web.process.output
    assert TOKEN not in (await web.admin("/settings")).body.decode()
    assert b"process_max_fds" in (await web.admin("/metrics")).body


async def test_prometheus_scrapes_it(mesh: Mesh, tmp_path: Path) -> None:
    prometheus = tool("prometheus")
    authority = WebCa()
    root = mesh.files / "root.pem"
    root.write_bytes(authority.root_pem)
    token = mesh.write("token", TOKEN)
    web = await mesh.sidecar("web", flags=(*write_leaf(mesh, authority), "--metrics-token-file", str(token)))
    job = {
        "job_name": "postern",
        "scheme": "https",
        "authorization": {"credentials_file": str(token)},
        "tls_config": {"ca_file": str(root)},
        "static_configs": [{"targets": [f"127.0.0.1:{web.metrics_port}"]}],
    }
    config = mesh.write(
        "prometheus.yml", json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]})
    )
    port = free_port()
    flags = (
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
    )
    mesh.processes.start([prometheus, *flags], name="prometheus")

    async def is_up() -> bool:
        try:
            answer = await request(port, "GET", "/api/v1/query?query=up")
        except OSError:
            return False
        found = json.loads(answer.body).get("data", {}).get("result", []) if answer.status == 200 else []
        return [each["value"][1] for each in found] == ["1"]

    await eventually(is_up)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--metrics-tls-cert", "{}/other"), "--metrics-tls-cert: alone, expected --metrics-tls-key, too"),
        (("--metrics-tls-cert", "{}/other", "--metrics-tls-key", "{}/other"), "--metrics-tls-cert, --metrics-tls-key: "),
        (("--metrics-token-file", "{}/empty"), "--metrics-token-file: {}/empty: expected one token of printable ASCII"),
        (("--metrics-token-file", "{}/none"), "--metrics-token-file: '{}/none' does not exist, expected a file"),
    ],
)  # fmt: skip
async def test_unusable_files_are_told_at_start(flags: tuple[str, ...], complaint: str, mesh: Mesh) -> None:
    mesh.write("other", "no certificate")
    mesh.write("empty", "\n")
    where = str(mesh.files)
    arguments = mesh.arguments("web", flags=tuple(flag.replace("{}", where) for flag in flags))
    process = mesh.processes.start([sys.executable, "-I", "-m", "proxy", *arguments], name="sidecar web")
    assert await process.ended(timeout_s=20.0) != 0
    assert complaint.replace("{}", where) in process.output
