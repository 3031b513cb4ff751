"""The stock programs: how each is started, what it needs, what its calls came to."""

import importlib.util
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.processes import REPOSITORY, Process, Processes

BUILT: Final = REPOSITORY / ".cache" / "stock"
_START_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """`command` starts it once `built` is there, for which `tools` are needed; `install` says how to get those.

    `modules` are what it imports, if it is in Python.
    """

    command: tuple[str, ...]
    built: Path | None = None
    tools: tuple[str, ...] = ()
    install: str = ""
    modules: tuple[str, ...] = ()

    def reason_missing(self) -> str | None:
        """Why it can't be run here, and what to do about it; None if it can."""
        if absent := [name for name in self.modules if importlib.util.find_spec(name) is None]:
            return f"{' and '.join(absent)} not installed: pip install -c .ci/constraints.txt -e '.[dev]'"
        if self.built is None or self.built.exists():
            return None
        if absent := [tool for tool in self.tools if shutil.which(tool) is None]:
            return f"{' and '.join(absent)} missing: {self.install}, then make stock"
        return f"{self.built.relative_to(REPOSITORY)} is not built: make stock"


GO_INSTALL: Final = "install Go 1.25 or newer"
JAVA_INSTALL: Final = "apt-get install openjdk-17-jdk-headless maven"
NODE_TOOLS: Final = ("node", "npm")
NODE_INSTALL: Final = "install Node.js 20 or newer, with npm"
# Java: the least that it takes; two of them run beside two proxies.
JVM: Final = ("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
PROGRAMS: Final = {
    "go": Program(
        command=(str(BUILT / "go" / "stock"),),
        built=BUILT / "go" / "stock",
        tools=("go",),
        install=GO_INSTALL,
    ),
    "java": Program(
        command=(*JVM, "-cp", f"{BUILT}/java/classes:{BUILT}/java/lib/*", "Stock"),
        built=BUILT / "java" / "built",
        tools=("java", "mvn"),
        install=JAVA_INSTALL,
    ),
    "node": Program(
        command=("node", str(BUILT / "node" / "stock.js")),
        built=BUILT / "node" / "built",
        tools=NODE_TOOLS,
        install=NODE_INSTALL,
    ),
    "python": Program(command=(sys.executable, str(REPOSITORY / "tests" / "stock" / "python" / "stock.py"))),
    "rust": Program(
        command=(str(BUILT / "rust" / "release" / "stock"),),
        built=BUILT / "rust" / "release" / "stock",
        tools=("cargo",),
        install="install Rust, https://rustup.rs",
    ),
}

# Clients of browsers' protocols, in JavaScript as well: by grpc-web, by Connect of its own server, and by Connect of gRPC's.
WEB: Final = "web"
CONNECT: Final = "connect"
CONNECT_TO_GRPC: Final = "connect-to-grpc"
_BROWSERS: Final = {
    WEB: ("web.js",),
    CONNECT: ("connect.js",),
    CONNECT_TO_GRPC: ("connect.js", "--grpc"),
}
_ALL: Final = PROGRAMS | {
    name: Program(
        command=("node", str(BUILT / "node" / script), *flags),
        built=BUILT / "node" / "built",
        tools=NODE_TOOLS,
        install=NODE_INSTALL,
    )
    for name, (script, *flags) in _BROWSERS.items()
}
KINDS: Final = ("cancelled", "early", "missing", "pages", "unary")
_KINDS_OF: Final = {
    WEB: tuple(f"{kind}-{form}" for kind in ("missing", "pages", "unary") for form in ("binary", "text")),
    CONNECT: tuple(
        f"{kind}-{way}"
        for kind in ("missing", "pages", "unary")
        for way in ("binary", "get", "json", "web", "web-json")
    ),
    CONNECT_TO_GRPC: ("missing-web", "unary-web"),
}

Outcomes = dict[str, dict[str, int]]


def reason_missing(language: str) -> str | None:
    """Why a program can't be run here, and what to do about it; None if it can."""
    return _ALL[language].reason_missing()


async def serve(processes: Processes, language: str) -> int:
    """Start a server; its port."""
    process = processes.start([*_ALL[language].command, "serve"], name=f"server in {language}")
    return int((await process.line(r"^serving (\d+)$", timeout_s=_START_S))[1])


async def call(
    processes: Processes, language: str, port: int, *, count: int, flight: int, within_s: float
) -> Outcomes:
    """Have a client make `count` calls of each kind to a port of loopback, `flight` of each at a time."""
    command = [*_ALL[language].command, "call", f"127.0.0.1:{port}", str(count), str(flight)]
    process = processes.start(command, name=f"client in {language}")
    return await outcomes(process, within_s)


async def outcomes(process: Process, within_s: float) -> Outcomes:
    """What a client says its calls came to."""
    told = await process.line(r"^result (.*)$", timeout_s=within_s)
    ended: Outcomes = json.loads(told[1])
    return ended


def failures(ended: Outcomes) -> Outcomes:
    """The outcomes that were not expected, of the kinds that had any."""
    wrong = {kind: {text: n for text, n in counts.items() if text != "ok"} for kind, counts in ended.items()}
    return {kind: counts for kind, counts in wrong.items() if counts}


def expected(language: str, count: int) -> Outcomes:
    """What `call` returns when nothing failed."""
    return {kind: {"ok": count} for kind in _KINDS_OF.get(language, KINDS)}
