"""A runtime root with a sentry, a small app to run, and the command itself."""

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.mesh import Mesh
from tests.support.processes import Process

POSTERN = (sys.executable, "-I", "-m", "proxy.cli")

APP = """
import http.server, os, signal, sys, threading, urllib.request

def ask(port, path="/v1.0/healthz/outbound"):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return f"{answer.status} {answer.read().decode()}".strip()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    except OSError as error:
        return f"failed: {error}"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        last = self.path.partition("?")[0].rpartition("/")[2]
        if self.path == "/exit":
            threading.Timer(0.05, os._exit, (9,)).start()
        text = os.environ["APP_ID"].encode() + b" " + self.command.encode() + b" " + self.path.encode() + b" " + body
        if self.path.startswith("/via/"):
            text = ask(os.environ["DAPR_HTTP_PORT"], f"/v1.0/invoke/{last}/method/hello").encode()
        self.send_response(int(last) if last.isdigit() else 200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_GET

    def log_message(self, *args):
        pass

def on_term(*_):
    print("term: sidecar says", ask(os.environ["DAPR_HTTP_PORT"]), flush=True)
    os._exit(0)

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("APP_PORT", "0"))), Handler)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else on_term)
for name in sorted(os.environ):
    if name.startswith(("DAPR_", "APP_")) or name.endswith("_ADDR"):
        print("env", f"{name}={os.environ[name]}")
print("listening on", server.server_port, "as process", os.getpid(), flush=True)
server.serve_forever()
"""


class Commands:
    """Starts `postern …` in the runtime root of one mesh."""

    def __init__(self, mesh: Mesh, folder: Path, *flags: str) -> None:
        self.mesh = mesh
        self.flags = flags
        self.folder = folder
        self.app = folder / "app.py"
        self.app.write_text(textwrap.dedent(APP))

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a command."""
        return self.mesh.processes.start(
            [*POSTERN, *words],
            name=" ".join(("postern", *words[:1])),
            env={"POSTERN_HOME": str(self.mesh.root), **(env or {})},
            cwd=self.folder,
        )

    async def done(self, *words: str) -> tuple[int, str]:
        """Run a command to its end: exit code and output."""
        process = self.start(*words)
        code = await process.ended(timeout_s=60.0)
        return code, process.output

    def run(self, app_id: str, *flags: str, command: tuple[str, ...] = ()) -> Process:
        """`postern run` of one app, by default the small one, on free ports and without a drain."""
        ports = ("--dapr-http-port=0", "--dapr-grpc-port=0", "--metrics-port=0", "--drain=0s", *self.flags)
        words = command or (sys.executable, str(self.app))
        return self.start("run", "--app-id", app_id, *ports, *flags, "--", *words)

    def run_file(self, text: str, *flags: str) -> Process:
        """`postern run -f` of a file in the folder; PYTHON and APP stand for the interpreter and the small app."""
        text = textwrap.dedent(text).replace("PYTHON", sys.executable).replace("APP_FILE", str(self.app))
        (self.folder / "dapr.yaml").write_text(text)
        return self.start("run", "-f", ".", "--drain=0s", *self.flags, *flags)


@pytest.fixture
async def commands(mesh: Mesh, tmp_path: Path) -> Commands:
    """The command, its sidecars without mutual TLS: no sentry is needed."""
    return Commands(mesh, tmp_path, "--insecure-plaintext")


@pytest.fixture
async def secured(mesh: Mesh, tmp_path: Path) -> Commands:
    """The command as users have it, in a root whose sentry runs already (so that none is started that outlives the test)."""
    await mesh.start_sentry()
    return Commands(mesh, tmp_path)
