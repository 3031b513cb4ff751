"""A real Zipkin for the demo, where Java and Maven are present: fetched once, started, stopped."""

import http.client
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.boutique.errors import ZipkinUnavailableError
from examples.boutique.processes import Deadline, end

VERSION = "3.6.1"
HOST = "127.0.0.1"
USUAL_PORT = 9411
FETCH_S = 300.0
START_S = 90.0
STOP_S = 10.0
ANSWER_S = 5.0
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


def is_possible() -> bool:
    """Whether the programs it takes are installed."""
    return shutil.which("java") is not None and shutil.which("mvn") is not None


def jar_in(folder: Path) -> Path:
    """Where the server's jar lies once it is fetched."""
    return folder / f"zipkin-server-{VERSION}-exec.jar"


def fetch(folder: Path) -> Path:
    """The server's jar, from Maven's registry the first time. Blocks. Raises: ZipkinUnavailableError."""
    jar = jar_in(folder)
    if jar.exists():
        return jar
    arriving = folder / "arriving"  # a copy that was cut short is not taken for the jar
    arriving.mkdir(parents=True, exist_ok=True)
    artifact = f"-Dartifact=io.zipkin:zipkin-server:{VERSION}:jar:exec"
    command = ["mvn", "-B", "-q", _COPY, artifact, f"-DoutputDirectory={arriving}"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=FETCH_S)
    except subprocess.TimeoutExpired as error:
        raise ZipkinUnavailableError(f"Maven took longer than {FETCH_S:.0f} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        text = getattr(error, "stdout", "") or str(error)
        raise ZipkinUnavailableError(f"Maven could not fetch it: {text.strip().splitlines()[0]}") from error
    if not (arriving / jar.name).exists():
        raise ZipkinUnavailableError(f"Maven did not leave {jar.name} in {arriving}")
    return (arriving / jar.name).rename(jar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zipkin:
    """A Zipkin server started here, maybe not ready yet."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def spans_url(self) -> str:
        """Where proxies send spans."""
        return f"http://{HOST}:{self.port}/api/v2/spans"

    def link(self, trace_id: str) -> str:
        """Where a person sees a trace."""
        return f"http://{HOST}:{self.port}/zipkin/traces/{trace_id}"

    def wait_until_ready(self) -> None:
        """Blocks until it answers. Raises: ZipkinUnavailableError."""
        deadline = Deadline(START_S)
        while self._get("/health") is None:
            if deadline.is_past() or not deadline.pause(self.process):
                raise ZipkinUnavailableError("it ended, or did not answer in time; see its log")

    def count_spans(self, trace_id: str) -> int:
        """How many spans of a trace it holds by now."""
        body = self._get(f"/api/v2/trace/{trace_id}")
        spans = json.loads(body) if body else []
        return len(spans) if isinstance(spans, list) else 0

    def _get(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        else:
            return body if answer.status == 200 else None
        finally:
            connection.close()


@contextmanager
def run_zipkin(jar: Path, log: Path) -> Iterator[Zipkin]:
    """Start the server on loopback, at its usual port where that is free; stopped at the end."""
    port = _free_port()
    where = [
        f"--armeria.ports[0].ip={HOST}",
        f"--armeria.ports[0].port={port}",
        "--armeria.ports[0].protocols=http",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["java", "-Xms64m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-jar", str(jar), *where],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SELF_TRACING_ENABLED": "false"},
            start_new_session=True,
        )
    try:
        yield Zipkin(port=port, process=process)
    finally:
        process.terminate()
        end(process, STOP_S)


def _free_port() -> int:
    for wanted in (USUAL_PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, wanted))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
    raise ZipkinUnavailableError("no port is free")
