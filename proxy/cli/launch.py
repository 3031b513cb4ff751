"""What to start for one app: the sidecar's arguments and the app's environment. Pure, except for the choice of a free port."""

import random
import re
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from proxy.cli.errors import CliError
from proxy.settings.values import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_APP_PORTS = range(
    20_000, 30_000
)  # below the kernel's own choice of ports, so that no sidecar takes one meanwhile
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
_SIDECAR_VARIABLES = ("DAPR_API_TOKEN", "APP_API_TOKEN", "NAMESPACE", "DAPR_TRUST_ANCHORS", "DAPR_HOST_IP")
EXPANDED = ("DAPR_HTTP_PORT", "DAPR_GRPC_PORT", "DAPR_METRICS_PORT", "APP_PORT", "APP_ID")


class AppSpec(Struct, frozen=True, kw_only=True):
    """One app to run. `flags` are the sidecar's own arguments, already parsed into `settings`.

    command: empty for a sidecar alone.
    env: what the run file adds to the caller's environment. chosen_port: whether we chose the app's port, so that PORT must say it.
    app_log and sidecar_log: files besides (or instead of) the console. found: the Configuration and the folder of resources among the
    flags that nobody named, taken as Dapr's commands take them.
    """

    app_id: str
    command: tuple[str, ...]
    folder: Path
    flags: tuple[str, ...]
    settings: Settings
    env: Mapping[str, str] = field(default_factory=dict)
    chosen_port: bool = False
    depends_on: tuple[str, ...] = ()
    app_on_console: bool = True
    sidecar_on_console: bool = True
    app_log: Path | None = None
    sidecar_log: Path | None = None
    found: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return f"AppSpec({self.app_id})"  # the environment may hold secrets


class Ready(Struct, frozen=True, kw_only=True):
    """What a sidecar said once its listeners were bound; a port is 0 where there is none."""

    http: int
    grpc: int
    peer: int
    metrics: int
    upstreams: Mapping[str, int]
    admin_socket: str


def sidecar_command(spec: AppSpec, *, ready_fd: int, cli_pid: int) -> list[str]:
    """The arguments of the sidecar's process."""
    metadata = {
        "run-command": " ".join(spec.command),
        "app-log": str(spec.app_log or ""),
        "sidecar-log": str(spec.sidecar_log or ""),
        "cli-pid": str(cli_pid),
        "ready-fd": str(ready_fd),
    }
    told = [f"--{name}={text}" for name, text in metadata.items() if text]
    return [sys.executable, "-I", "-m", "proxy", *spec.flags, *told]


def sidecar_environment(spec: AppSpec, caller: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment, with what app and sidecar must agree on; PYTHON* reaches only the app."""
    kept = {name: text for name, text in caller.items() if not name.startswith("PYTHON")}
    return kept | {name: spec.env[name] for name in _SIDECAR_VARIABLES if name in spec.env}


def app_environment(spec: AppSpec, ready: Ready, caller: Mapping[str, str]) -> dict[str, str]:
    """The app's environment. The variables are Dapr's; those of upstreams' own ports are ours."""
    facts = _facts(spec, ready)
    defaults = {"PYTHONUNBUFFERED": "1"}  # else a piped Python app keeps its lines to itself
    for own in spec.settings.upstreams:
        port = ready.upstreams.get(own.app) or own.port
        if port:
            defaults[own.variable] = f"localhost:{port}"
    added = {name: expand(text, facts) for name, text in spec.env.items()}
    environment = {
        **defaults,
        **caller,
        **{k: v for k, v in defaults.items() if k.endswith("_ADDR")},
        **added,
        **facts,
    }
    if "APP_PORT" in facts and (spec.chosen_port or "PORT" not in environment):
        environment["PORT"] = facts["APP_PORT"]
    for name in ("no_proxy", "NO_PROXY"):
        if name == "no_proxy" or name in environment:
            environment[name] = with_loopback(environment.get(name, environment.get("NO_PROXY", "")))
    return environment


def _facts(spec: AppSpec, ready: Ready) -> dict[str, str]:
    settings = spec.settings
    numbers = {
        "APP_PORT": settings.app_port,
        "DAPR_HTTP_PORT": ready.http,
        "DAPR_GRPC_PORT": ready.grpc,
        "DAPR_METRICS_PORT": ready.metrics,
    }
    return {
        "APP_ID": settings.app_id,
        "APP_PROTOCOL": settings.app_protocol,
        "APP_CHANNEL_ADDRESS": settings.app_channel_address,
        **{name: str(number) for name, number in numbers.items() if number},
    }


def app_command(spec: AppSpec, ready: Ready) -> list[str]:
    """The app's arguments, with the sidecar's ports put in."""
    facts = _facts(spec, ready)
    return [expand(word, facts) for word in spec.command]


def expand(text: str, facts: Mapping[str, str]) -> str:
    """Replace `${DAPR_HTTP_PORT}` and the others of EXPANDED; every other `${…}` is the app's own and stays."""

    def replaced(match: re.Match[str]) -> str:
        return facts.get(match[1], "") if match[1] in EXPANDED else match[0]

    return _VARIABLE.sub(replaced, text)


def with_loopback(no_proxy: str) -> str:
    """A no_proxy list that covers loopback: gRPC clients send CONNECT for localhost to a proxy otherwise."""
    names = [name.strip() for name in no_proxy.split(",") if name.strip()]
    return ",".join((*names, *(name for name in LOOPBACK if name not in names)))


def free_ports(count: int, chance: random.Random, *, taken: Iterable[int] = ()) -> tuple[int, ...]:
    """Distinct ports that nobody listens on now, none of them in `taken`. Raises CliError."""
    found: list[int] = []
    candidates: Sequence[int] = chance.sample(_APP_PORTS, len(_APP_PORTS))
    used = set(taken)
    for port in candidates:
        if len(found) == count:
            break
        if port not in used and _is_free(port):
            found.append(port)
    if len(found) < count:
        raise CliError(f"no {count} free ports from {_APP_PORTS.start} to {_APP_PORTS.stop - 1}")
    return tuple(found)


def _is_free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.bind((host, port))
        except OSError:
            if family == socket.AF_INET:
                return False
    return True
