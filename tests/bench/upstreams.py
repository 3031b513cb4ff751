"""The apps at the end of every path, fast enough never to be what is measured: nghttpd for gRPC, Envoy for HTTP/1.1.

nghttpd serves a file that holds one framed message, with `grpc-status: 0` as trailer: a correct unary answer, in C.
Envoy cannot play that part: to a gRPC request its direct responses are trailers only.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import GRPC_MESSAGE, GRPC_PATH
from tests.bench.tools import program
from tests.support.ports import free_port
from tests.support.processes import Processes, wait_accepting


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstreams:
    """Ports of the running upstreams."""

    grpc_port: int
    http_port: int


def write_message(folder: Path) -> Path:
    """Write the framed request; h2load posts it."""
    path = folder / "message.bin"
    path.write_bytes(GRPC_MESSAGE)
    return path


def start_grpc_upstream(processes: Processes, folder: Path) -> int:
    """Start nghttpd; returns its port once it accepts connections."""
    answer = folder / "documents" / GRPC_PATH.lstrip("/")
    answer.parent.mkdir(parents=True)
    answer.write_bytes(GRPC_MESSAGE)
    types = folder / "mime.types"
    types.write_text(f"application/grpc {answer.suffix.lstrip('.')}\n")
    port = free_port()
    flags = [
        "--no-tls",
        "--address=127.0.0.1",
        f"--htdocs={folder / 'documents'}",
        f"--mime-types-file={types}",
    ]
    flags += ["--trailer=grpc-status: 0", "--max-concurrent-streams=1000", str(port)]
    process = processes.start([program("nghttpd"), *flags], name="nghttpd")
    wait_accepting(port, process)
    return port
