"""A real Zipkin server for tests and the demo: fetched with Maven into a cache folder, run on Java, asked over HTTP.

Free of pytest; `reason_missing` says in a sentence what a machine lacks, so that callers can skip by name.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

VERSION: Final = "3.6.1"
CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "zipkin"

_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_SERVING: Final = re.compile(r"Serving HTTP at .*http://127\.0\.0\.1:(\d+)/")
_FETCH_S: Final = 600.0
_POLL_S: Final = 0.1


class ZipkinUnavailableError(Exception):
    """Zipkin can't be fetched or started here; the message says why."""


def reason_missing() -> str | None:
    """What this machine lacks to run Zipkin, or None: a Java 17 or newer, and Maven unless the jar is cached."""
    if shutil.which("java") is None:
        return "java is missing (Debian: apt-get install openjdk-17-jre-headless)"
    version = subprocess.run(
        ["java", "-version"], capture_output=True, text=True, timeout=30, check=False
    ).stderr
    major = re.search(r'version "(\d+)', version)
    if major is None or int(major[1]) < 17:
        return (
            f"java is too old: expected 17 or newer, got {version.splitlines()[0] if version else 'nothing'}"
        )
    if not _jar(CACHE).exists() and shutil.which("mvn") is None:
        return "mvn is missing and Zipkin's jar is not cached (Debian: apt-get install maven)"
    return None


def _jar(cache: Path) -> Path:
    return cache / f"zipkin-server-{VERSION}-exec.jar"


def fetch(cache: Path = CACHE) -> Path:
    """The server's jar, downloaded from Maven Central unless it is there. Raises: ZipkinUnavailableError."""
    jar = _jar(cache)
    if jar.exists():
        return jar
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jar.exists():
            return jar
        # Into a folder of its own and then renamed, so that an aborted download is never taken for the jar.
        partial = cache / "partial"
        command = [
            *("mvn", "-B", "-q", "-ntp", _COPY, f"-Dartifact=io.zipkin:zipkin-server:{VERSION}:jar:exec"),
            f"-DoutputDirectory={partial}",
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_S, cwd=cache)
        except FileNotFoundError as error:
            raise ZipkinUnavailableError("mvn is missing") from error
        except subprocess.TimeoutExpired as error:
            raise ZipkinUnavailableError(f"mvn did not fetch Zipkin within {_FETCH_S:g} s") from error
        except subprocess.CalledProcessError as error:
            raise ZipkinUnavailableError(
                f"mvn could not fetch Zipkin: {error.stdout.strip()[-500:]}"
            ) from error
        (partial / jar.name).replace(jar)
        partial.rmdir()
    return jar


class ZipkinServer:
    """A running server. `url` is its root, `endpoint` where spans are posted."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self.endpoint = f"{url}/api/v2/spans"

    def get(self, path: str, timeout_s: float = 10.0) -> Any:
        """The JSON that the server answers at `path`. Raises: urllib.error.URLError."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout_s) as answer:
            return json.load(answer)

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of one trace, none if it is not known."""
        try:
            spans: list[dict[str, Any]] = self.get(f"/api/v2/trace/{trace_id}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return spans

    def traces(self, service: str = "", limit: int = 100) -> list[list[dict[str, Any]]]:
        """The latest traces, of one service if named."""
        query = f"?limit={limit}" + (f"&serviceName={service}" if service else "")
        found: list[list[dict[str, Any]]] = self.get(f"/api/v2/traces{query}")
        return found

    def services(self) -> list[str]:
        """Names of all services seen."""
        found: list[str] = self.get("/api/v2/services")
        return found

    def dependencies(self) -> list[dict[str, Any]]:
        """The links `{parent, child, callCount}` of the last hour."""
        found: list[dict[str, Any]] = self.get(
            f"/api/v2/dependencies?endTs={int(time.time() * 1000) + 60_000}"
        )
        return found

    def wait_trace(self, trace_id: str, spans: int, deadline_s: float = 20.0) -> list[dict[str, Any]]:
        """The trace once it has at least `spans` spans.

        Zipkin answers a POST before it has stored, and tells nobody when it has: hence a poll with a deadline.
        Raises: TimeoutError saying how many there were.
        """
        until = time.monotonic() + deadline_s
        pause = threading.Event()
        while True:
            found = self.trace(trace_id)
            if len(found) >= spans:
                return found
            if time.monotonic() >= until:
                raise TimeoutError(f"trace {trace_id}: expected {spans} spans, got {len(found)}")
            pause.wait(_POLL_S)


@contextlib.contextmanager
def launch(cache: Path = CACHE, *, deadline_s: float = 90.0, port: int = 0) -> Iterator[ZipkinServer]:
    """Fetches and runs a server with its data in memory, on loopback; ends it on leaving.

    Raises: ZipkinUnavailableError when it can't be fetched, or is not healthy within `deadline_s`.
    """
    missing = reason_missing()
    if missing is not None:
        raise ZipkinUnavailableError(missing)
    process = _start(fetch(cache), port)
    output = _Output(process)
    try:
        yield _wait_healthy(process, output, time.monotonic() + deadline_s)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        output.close()


def _start(jar: Path, port: int) -> subprocess.Popen[str]:
    listener = {"ip": "127.0.0.1", "port": str(port), "protocols[0]": "http"}
    return subprocess.Popen(
        [
            *("java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(jar)),
            *(f"--armeria.ports[0].{key}={value}" for key, value in listener.items()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=jar.parent,
        # Only what Java needs: a QUERY_PORT or STORAGE_TYPE of the user's must not change what is tested.
        env={
            key: os.environ[key]
            for key in ("PATH", "HOME", "JAVA_HOME", "LANG", "TMPDIR")
            if key in os.environ
        },
        # Ctrl-C reaches the demo alone, which then ends its parts in order.
        start_new_session=True,
    )


class _Output:
    """Reads what the server prints, so that its pipe never fills, and finds its port in it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.port = 0
        self.serving_or_ended = threading.Event()
        self.last: deque[str] = deque(maxlen=20)
        self._process = process
        self._reader = threading.Thread(target=self._read, name="zipkin-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.last.append(line.rstrip())
            found = _SERVING.search(line)
            if found is not None:
                self.port = int(found[1])
                self.serving_or_ended.set()
        self.serving_or_ended.set()

    def close(self) -> None:
        """Once the process has ended."""
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _wait_healthy(process: subprocess.Popen[str], output: _Output, until: float) -> ZipkinServer:
    output.serving_or_ended.wait(max(0.0, until - time.monotonic()))
    if not output.port:
        said = "\n".join(output.last)
        raise ZipkinUnavailableError(f"Zipkin did not start (exit code {process.poll()}): {said}")
    server = ZipkinServer(f"http://127.0.0.1:{output.port}", process.pid)
    pause = threading.Event()
    while True:
        try:
            if server.get("/health", 5.0)["status"] == "UP":
                return server
            problem = "not UP"
        except (OSError, ValueError) as error:
            problem = str(error)
        if time.monotonic() >= until:
            raise ZipkinUnavailableError(f"Zipkin is not healthy: {problem}")
        pause.wait(_POLL_S)
