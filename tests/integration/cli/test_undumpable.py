"""Who may look into the processes that hold private keys: nobody of the same user, on either engine, while all else works as before."""

import asyncio
import json
import resource
import subprocess
import sys

import psutil
import pytest

from tests.integration.cli.conftest import POSTERN, Commands
from tests.integration.cli.test_run import LISTENING, READY, sidecar_of
from tests.integration.sentry.process import end_local
from tests.support.engines import ENGINES
from tests.support.http_client import request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")

# As an ordinary user has it: root loses CAP_SYS_PTRACE (19), which opens every process, from its bounding set (PR_CAPBSET_DROP, 24).
ORDINARY = (
    sys.executable,
    "-c",
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 19, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])",
)


def can_read_memory_of(pid: int) -> bool:
    """Whether another process of the same user may open the memory of this one."""
    words = (*ORDINARY, "/bin/sh", "-c", f"exec </proc/{pid}/mem")
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 or b"ermission denied" in done.stderr, done.stderr
    return done.returncode == 0


def cores_of(pid: int) -> tuple[int, int]:
    """The limit of core dumps."""
    return resource.prlimit(pid, resource.RLIMIT_CORE)


@pytest.mark.parametrize("engine", ENGINES)
async def test_key_holders_can_not_be_looked_into_and_the_app_is_left_as_it_is(
    commands: Commands, engine: str
) -> None:
    root = commands.mesh.root
    ports = ("--dapr-http-port=0", "--dapr-grpc-port=0", "--metrics-port=0", "--app-port=0", "--drain=0s")
    words = (sys.executable, str(commands.app))
    run = commands.mesh.processes.start(
        (*ORDINARY, *POSTERN, "run", "--app-id=cart", f"--engine={engine}", *ports, "--", *words),
        name="postern run",
        env={"POSTERN_HOME": str(root)},
        cwd=commands.folder,
    )
    try:
        app = int((await run.line(LISTENING))[2])
        http = int((await run.line(READY))[1])
        code, said = await commands.done("wait", "cart")
        assert code == 0, said
        sidecar, sentry = sidecar_of(run).pid, int((root / "sentry" / "sentry.pid").read_text())
        seen = {pid: await asyncio.to_thread(can_read_memory_of, pid) for pid in (sidecar, sentry, app)}
        assert seen == {sidecar: False, sentry: False, app: True}
        assert (cores_of(sidecar), cores_of(sentry)) == ((0, 0), (0, 0))
        assert cores_of(app) == resource.getrlimit(resource.RLIMIT_CORE)
        answer = await request(http, "GET", "/v1.0/invoke/cart/method/hello", timeout_s=10.0)
        assert (answer.status, answer.body) == (200, b"cart GET /hello ")
        code, status = await commands.done("list", "-o", "json")
        assert code == 0, status
        assert [(entry["daprdPid"], entry["appPid"]) for entry in json.loads(status)] == [(sidecar, app)]
        code, said = await commands.done("stop", "cart")
        assert code == 0, said
        await run.ended(timeout_s=20.0)
        assert not psutil.pid_exists(sidecar)
    finally:
        await run.end()
        end_local(root)
