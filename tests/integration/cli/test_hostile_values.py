"""What others wrote (registry entries, sidecars' answers, headers) never reaches the terminal as more than text in its row."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from nameresolution.host_registry import Entry, HostRegistry
from proxy.api.server import LocalHttp, LocalRequest
from proxy.wire.http_client import LocalResponse
from tests.integration.cli.conftest import Commands

EVIL = "evil\n\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202egnp.exe\u2066\x7f"
NOTED = {"lastError": EVIL, "warnings": [EVIL], "generation": EVIL, "state": EVIL, "spiffeId": EVIL}
ANSWERS = {
    "/status": {
        "ready": False,
        "notReady": [EVIL],
        "engine": EVIL,
        "engineNotice": EVIL,
        "version": EVIL,
        "shutdown": EVIL,
        "identity": NOTED,
        "policy": NOTED,
        "app": {"protocol": EVIL},
    },
    "/metadata": {
        "extended": dict.fromkeys(("appCommand", "appLogPath", "daprdLogPath", "cliPID", "appPID", "runTemplatePath"), EVIL)
    },
    "/endpoints": {EVIL: {"endpoints": [{"address": EVIL, "instance": EVIL, "source": EVIL}], "tried": [EVIL]}},
    "/explain": {
        "appId": EVIL,
        "namespace": EVIL,
        "request": {"method": EVIL, "path": EVIL, "protocol": EVIL, "listener": EVIL},
        "callee": {"appId": EVIL, "namespace": EVIL},
        "verdict": EVIL,
        "namedBy": EVIL,
        "access": EVIL,
        "readAs": EVIL,
        "answer": {"cause": EVIL, "status": 500, "grpcCode": 2, "message": EVIL},
        "read": [{"facet": EVIL, "name": EVIL, "table": EVIL, "value": EVIL}],
    },
    "/trace": {
        "traceId": "0" * 31 + "1",
        "spans": [
            {
                "traceId": "0" * 31 + "1",
                "id": "1" * 16,
                "name": EVIL,
                "timestamp": 1,
                "duration": 1,
                "kind": "CLIENT",
                "tags": {"error": EVIL, EVIL: EVIL},
                "localEndpoint": {"serviceName": EVIL},
            }
        ],
    },
}  # fmt: skip


async def answer(request: LocalRequest) -> LocalResponse:
    """A sidecar that means harm."""
    found = ANSWERS.get(request.target.partition("?")[0])
    if found is None:
        return LocalResponse(
            500, ((b"x-evil", EVIL.encode().replace(b"\n", b"").replace(b"\r", b"")),), b"body\n"
        )
    return LocalResponse(200, ((b"content-type", b"application/json"),), json.dumps(found).encode())


@asynccontextmanager
async def hostile_sidecar(root: Path, folder: Path) -> AsyncIterator[None]:
    """An entry full of escapes in the registry, and its admin socket."""
    server = LocalHttp(answer)
    admin, api = folder / "admin.sock", folder / "dapr-evil-http.socket"
    entry = Entry(
        app_id="evil",
        instance=EVIL,
        peer_port=1,
        http_port=1,
        namespace=EVIL,
        command=EVIL,
        run_template=EVIL,
        profile=EVIL,
        started_at=1.0,
        admin_socket=str(admin),
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.run())
        await server.serve(f"unix:{admin}")
        await server.serve(f"unix:{api}")
        registry = HostRegistry(root)
        silent = replace(entry, app_id="silent", instance=EVIL + "2", admin_socket=EVIL)
        with closing(registry.register(entry)), closing(registry.register(silent)):
            yield
        running.cancel()


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml"])
async def test_no_command_prints_what_a_terminal_would_obey(
    commands: Commands, tmp_path: Path, form: str
) -> None:
    async with hostile_sidecar(commands.mesh.root, tmp_path):
        listings = [
            ("list",),
            ("status",),
            ("endpoints",),
            ("endpoints", EVIL),
            ("trace", "--last"),
            ("explain", "--from", "evil", "GET", "/x"),
        ]
        told = [
            (*words, "-o", "text" if words[0] == "trace" and form in {"table", "wide"} else form)
            for words in listings
        ]
        others = [
            ("invoke", "-a", EVIL, "-m", EVIL, "-i", "--from", "evil", "-u", str(tmp_path)),
            ("invoke", "-a", "x", "-m", "x", "--from", EVIL),
            ("explain", "--from", EVIL, "GET", "/x"),
            ("explain", "--from", "evil", EVIL, EVIL, "-H", f"x: {EVIL}"),
            ("stop", EVIL),
            ("stop", "evil", "--timeout", "0.1"),
            ("stop", "--instance", EVIL, "--timeout", "0.1"),
            ("wait", EVIL, "--timeout", "0s"),
            ("run", "--app-id", EVIL, "--", EVIL),
            ("run", "-f", EVIL),
            (EVIL,),
        ]
        for words in told if form != "table" else [*told, *others]:
            _, output = await commands.done(*words)
            assert output, words
            assert all(line.isprintable() for line in output.split("\n")), (words, output)


async def test_a_row_stays_one_line_whatever_is_in_it(commands: Commands, tmp_path: Path) -> None:
    async with hostile_sidecar(commands.mesh.root, tmp_path):
        _, output = await commands.done("list")
        assert len(output.splitlines()) == 3
