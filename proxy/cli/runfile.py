"""The run file: its schema, and what each of its apps becomes. Keys are those of `dapr.yaml`, plus postern's own.

Own keys: `routes`, `upstreams`, `grpcServices`, `dependsOn`; `appPort: 0` is a free port, told to the app as APP_PORT and PORT. Unknown
keys are errors.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from policies.errors import DocumentError, Fault, advised
from policies.reading.documents import Document, examine, read_documents
from proxy.cli.dapr_home import config_in, home_config, home_resources, resources_of
from proxy.cli.errors import UsageError
from proxy.cli.launch import AppSpec, free_ports
from proxy.errors import ConfigError
from proxy.settings.parsing import parse

NAMES = ("dapr.yaml", "dapr.yml")
SUFFIXES = (".yaml", ".yml")
Destination = Literal["console", "file", "fileAndConsole"]
PortNumber = Annotated[int, Meta(ge=0, le=65535)]


class Shared(Struct, frozen=True, kw_only=True, rename="camel"):
    """Keys of `common` and of each app. None: not written."""

    config_file_path: str | None = None
    app_protocol: str | None = None
    api_listen_addresses: str | None = None
    enable_profiling: bool | None = None
    log_level: str | None = None
    app_max_concurrency: int | None = None
    placement_host_address: str | None = None
    scheduler_host_address: str | None = None
    resources_path: str | None = None
    resources_paths: list[str] | None = None
    app_ssl: bool | None = field(name="appSSL", default=None)
    max_body_size: str | None = None
    read_buffer_size: str | None = None
    enable_app_health_check: bool | None = None
    app_health_check_path: str | None = None
    app_health_probe_interval: int | None = None
    app_health_probe_timeout: int | None = None
    app_health_threshold: int | None = None
    enable_api_logging: bool | None = None
    runtime_path: str | None = None
    env: dict[str, str] | None = None
    app_log_destination: Destination | None = None
    daprd_log_destination: Destination | None = None
    routes: dict[str, str] | list[str] | None = None
    upstreams: dict[str, PortNumber] | list[str] | None = None


class App(Shared, frozen=True, kw_only=True):
    """One entry of `apps`."""

    app_id: str | None = field(name="appID", default=None)
    app_dir_path: str
    app_port: PortNumber | None = None
    app_channel_address: str | None = None
    dapr_http_port: PortNumber | None = field(name="daprHTTPPort", default=None)
    dapr_grpc_port: PortNumber | None = field(name="daprGRPCPort", default=None)
    dapr_internal_grpc_port: PortNumber | None = field(name="daprInternalGRPCPort", default=None)
    metrics_port: PortNumber | None = None
    profile_port: PortNumber | None = None
    unix_domain_socket: str | None = None
    command: Annotated[list[str], Meta(min_length=1)] | None = None
    container_image: str | None = None
    container_image_pull_policy: str | None = None
    create_service: bool | None = None
    grpc_services: list[str] | None = None
    depends_on: list[str] | None = None


class RunFile(Struct, frozen=True, kw_only=True):
    """A whole run file."""

    version: Annotated[int, Meta(ge=1, le=1)]
    name: str | None = None
    common: Shared = Shared()
    apps: Annotated[list[App], Meta(min_length=1)]


# run file key (as a field) -> flag, for values that are passed on as they are
PASSED = {
    "app_protocol": "app-protocol",
    "api_listen_addresses": "dapr-listen-addresses",
    "enable_profiling": "enable-profiling",
    "log_level": "log-level",
    "app_max_concurrency": "app-max-concurrency",
    "placement_host_address": "placement-host-address",
    "scheduler_host_address": "scheduler-host-address",
    "app_ssl": "app-ssl",
    "max_body_size": "max-body-size",
    "read_buffer_size": "read-buffer-size",
    "enable_app_health_check": "enable-app-health-check",
    "app_health_check_path": "app-health-check-path",
    "app_health_probe_interval": "app-health-probe-interval",
    "app_health_probe_timeout": "app-health-probe-timeout",
    "app_health_threshold": "app-health-threshold",
    "enable_api_logging": "enable-api-logging",
    "runtime_path": "runtime-path",
    "app_channel_address": "app-channel-address",
    "dapr_http_port": "dapr-http-port",
    "dapr_grpc_port": "dapr-grpc-port",
    "dapr_internal_grpc_port": "dapr-internal-grpc-port",
    "metrics_port": "metrics-port",
    "profile_port": "profile-port",
}

# Keys that Dapr's documentation has and its command does not know -> the one that both take.
_DOCUMENTED = {
    "daprHTTPMaxRequestSize": "maxBodySize, as 8Mi",
    "daprHTTPReadBufferSize": "readBufferSize, as 64Ki",
}

# run file key (as a field) -> what it does, for all others
KEYS = {
    "version": "1",
    "name": "the run's name, in `postern list`",
    "common": "keys for all apps; an app's own win, `env`, `routes` and `upstreams` are joined",
    "apps": "the apps",
    "config_file_path": "`--config`; without it `.dapr/config.yaml` in the app's folder, else in the home folder, if it is there",
    "resources_path": "as `resourcesPaths`, with one folder",
    "resources_paths": "`--resources-path` of each; without it `.dapr/resources` in the app's folder, else `.dapr/components` at home",
    "env": "variables for the app, as text; `${APP_PORT}` and the like are put in",
    "app_log_destination": "console, file or fileAndConsole: where the app's output goes (fileAndConsole)",
    "daprd_log_destination": "the same for the sidecar's",
    "routes": "`--route` of each, as `service: app` or a list of `service=app`",
    "upstreams": "`--upstream` of each, as `app: port` or a list",
    "app_dir_path": "the folder that the app runs in, and that its paths are relative to; required",
    "app_id": "`--app-id`; without it the folder's name",
    "app_port": "`--app-port`; 0 is a free one, told to the app as APP_PORT and PORT",
    "unix_domain_socket": "`--unix-domain-socket`",
    "command": "the app's command, as a list of words; without it the sidecar runs alone",
    "container_image": "for Kubernetes: no effect",
    "container_image_pull_policy": "for Kubernetes: no effect",
    "create_service": "for Kubernetes: no effect",
    "grpc_services": "`--grpc-service` of each: what the app serves, where it has no server reflection",
    "depends_on": "apps of this file that must be ready before this one starts",
}


_STDIN = Path("<stdin>")  # what messages call it


def read_run_file(
    where: str, *, flags: Sequence[str], env: Mapping[str, str], chance: random.Random
) -> tuple[AppSpec, ...]:
    """The apps of a run file; `flags` (long names) go to every sidecar. Raises: CliError with every fault at once."""
    path, folder = find(where)
    lenient = "--config-lenient" in flags
    try:
        document, run_file = load(path, lenient=lenient)
        if where == "-":
            document = replace(document, path=_STDIN)
        return specs_of(document, run_file, folder, flags=flags, env=env, chance=chance)
    except DocumentError as error:
        faults = (replace(fault, path=_STDIN) for fault in error.faults) if where == "-" else error.faults
        raise UsageError("\n".join(map(str, faults))) from error
    finally:
        if where == "-":
            path.unlink()


def specs_of(
    document: Document,
    run_file: RunFile,
    folder: Path,
    *,
    flags: Sequence[str],
    env: Mapping[str, str],
    chance: random.Random,
) -> tuple[AppSpec, ...]:
    """What the apps of a run file that fits its schema become; paths are relative to `folder`. Raises: DocumentError."""
    return _Reading(document, run_file, folder, tuple(flags), env).specs(chance)


def find(where: str) -> tuple[Path, Path]:
    """The file, and the folder that its paths are relative to; standard input is copied into a file of our own. Raises: CliError."""
    if where == "-":
        with tempfile.NamedTemporaryFile(prefix="stdin-", suffix=".yaml", delete=False) as copy:
            copy.write(sys.stdin.buffer.read())
        return Path(copy.name), Path.cwd()
    path = Path(where).expanduser().absolute()
    if path.is_dir():
        found = next((path / name for name in NAMES if (path / name).is_file()), None)
        if found is None:
            raise UsageError(f"{path}: contains no {NAMES[0]}")
        return found, path
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: expected a file that ends in .yaml or .yml, a folder, or -")
    return path, path.parent


def load(path: Path, *, lenient: bool = False) -> tuple[Document, RunFile]:
    """Read and check a run file. Raises: DocumentError."""
    documents = read_documents(path, None, is_text=_is_text)
    if len(documents) != 1:
        problem = f"holds {len(documents)} documents (expected one)"
        raise DocumentError([Fault(path=path, line=0, field="", problem=problem)])
    run_file, found = examine(documents[0], RunFile)
    faults = [_with_daprs_key(fault) for fault in found]
    if run_file is None or (faults and not (lenient and all(fault.is_lenient for fault in faults))):
        raise DocumentError(faults if lenient else advised(faults))
    return documents[0], run_file


def _with_daprs_key(fault: Fault) -> Fault:
    key = _DOCUMENTED.get(fault.field.rpartition(".")[2])
    return (
        replace(fault, problem=f"unknown key, to Dapr's command as well (expected {key})") if key else fault
    )


def _is_text(place: tuple[str | int, ...]) -> bool:
    """Environment variables and words of a command are text, whatever YAML takes them for."""
    match place:
        case ("common", "env", _) | ("apps", _, "env", _) | ("apps", _, "command", _):
            return True
        case _:
            return False


class _Reading:
    """Turns the apps of one run file into specs, collecting every fault."""

    def __init__(
        self,
        document: Document,
        run_file: RunFile,
        folder: Path,
        flags: tuple[str, ...],
        env: Mapping[str, str],
    ) -> None:
        self._document = document
        self._file = run_file
        self._folder = folder
        self._flags = flags
        self._env = env
        self._faults: list[Fault] = []
        self._flag_faults: dict[
            str, tuple[tuple[str | int, ...], list[str]]
        ] = {}  # problem -> first place, apps
        self._stamp = datetime.now().astimezone().strftime("%Y%m%d%H%M%S")

    def specs(self, chance: random.Random) -> tuple[AppSpec, ...]:
        apps = self._file.apps
        wanted = [index for index, app in enumerate(apps) if app.app_port == 0]
        fixed = {app.app_port for app in apps if app.app_port}
        chosen = dict(zip(wanted, free_ports(len(wanted), chance, taken=fixed), strict=True))
        folders = [
            self._existing(self._folder, app.app_dir_path, ("apps", i, "appDirPath"))
            for i, app in enumerate(apps)
        ]
        ids = [app.app_id or folder.name for app, folder in zip(apps, folders, strict=True)]
        self._check_names(ids)
        specs = [self._spec(i, ids[i], folders[i], chosen.get(i)) for i in range(len(apps))]
        self._faults += [
            self._document.fault(place, _of_apps(problem, names))
            for problem, (place, names) in self._flag_faults.items()
        ]
        if self._faults:
            raise DocumentError(self._faults)
        return tuple(spec for spec in specs if spec is not None)

    def _check_names(self, ids: Sequence[str]) -> None:
        for index, (app, name) in enumerate(zip(self._file.apps, ids, strict=True)):
            if Counter(ids)[name] > 1:
                self._fault(("apps", index, "appID"), f"{name} is given twice (expected ids that differ)")
            for needed in app.depends_on or ():
                if needed not in ids or needed == name:
                    others = ", ".join(other for other in ids if other != name) or "no other app"
                    self._fault(
                        ("apps", index, "dependsOn"), f"unknown app {needed!r} (expected one of {others})"
                    )
        self._check_ports(ids)
        needs = {name: tuple(app.depends_on or ()) for app, name in zip(self._file.apps, ids, strict=True)}
        if cycle := find_cycle(needs):
            self._fault(("apps",), f"dependsOn has a cycle: {' -> '.join(cycle)}")

    def _check_ports(self, ids: Sequence[str]) -> None:
        """Each port of this machine is one listener's."""
        taken: dict[int, str] = {}
        for index, app in enumerate(self._file.apps):
            for key, port in _ports(app):
                if port in taken:
                    problem = (
                        f"{port} is also {taken[port]} (expected different ports, or 0 for any free one)"
                    )
                    self._fault(("apps", index, key), problem)
                else:
                    taken[port] = f"{key} of {ids[index]}"

    def _spec(self, index: int, app_id: str, folder: Path, chosen: int | None) -> AppSpec | None:
        app, common = self._file.apps[index], self._file.common
        place = ("apps", index)
        env = {**(common.env or {}), **(app.env or {})}
        port = chosen if chosen is not None else app.app_port
        config_flags, config = self._config(app, common, index, folder)
        resource_flags, resources = self._resources(app, common, index, folder)
        flags = [
            "--profile=dev",
            f"--app-id={app_id}",
            *([f"--app-port={port}"] if port else []),
            *self._passed(app, common),
            *config_flags,
            *resource_flags,
            *self._socket(app, index, folder),
            *(f"--route={route}" for route in (*_routes(common.routes), *_routes(app.routes))),
            *(f"--upstream={upstream}" for upstream in _upstreams(common, app)),
            *(f"--grpc-service={service}" for service in app.grpc_services or ()),
            f"--run-template={self._document.path}",
            *([f"--run-template-name={self._file.name}"] if self._file.name else []),
            *self._flags,
        ]
        try:
            settings = parse(flags, {**self._env, **env})
        except ConfigError as error:
            for fault in error.faults:
                self._flag_faults.setdefault(fault, (place, []))[1].append(app_id)
            return None
        app_to = app.app_log_destination or common.app_log_destination or "fileAndConsole"
        sidecar_to = app.daprd_log_destination or common.daprd_log_destination or "fileAndConsole"
        logs = folder / ".dapr" / "logs"
        return AppSpec(
            app_id=app_id,
            command=tuple(app.command or ()),
            folder=folder,
            flags=tuple(flags),
            settings=settings,
            env=env,
            chosen_port=chosen is not None,
            depends_on=tuple(app.depends_on or ()),
            app_on_console=app_to != "file",
            sidecar_on_console=sidecar_to != "file",
            app_log=None
            if app_to == "console" or not app.command
            else logs / f"{app_id}_app_{self._stamp}.log",
            sidecar_log=None if sidecar_to == "console" else logs / f"{app_id}_daprd_{self._stamp}.log",
            found=tuple(path for path in (config, resources) if path is not None),
        )

    def _passed(self, app: App, common: Shared) -> list[str]:
        flags = []
        for name, flag in PASSED.items():
            value = getattr(app, name, None)
            if value is None:
                value = getattr(common, name, None)
            if value is not None:
                flags.append(f"--{flag}={_text(value)}")
        return flags

    def _config(self, app: App, common: Shared, index: int, folder: Path) -> tuple[list[str], Path | None]:
        """The flag for the Configuration, and its path where nobody named it.

        An app's paths are relative to its folder, common ones to the file. Where the app names none, its own `.dapr` comes before those,
        and the user's after.
        """
        if app.config_file_path:
            place: tuple[str | int, ...] = ("apps", index, "configFilePath")
            return self._path_flag("config", folder, app.config_file_path, place), None
        found = config_in(folder / ".dapr")
        if found is None and common.config_file_path:
            place = ("common", "configFilePath")
            return self._path_flag("config", self._folder, common.config_file_path, place), None
        found = found or home_config(self._env)
        return ([], None) if found is None else ([f"--config={found}"], found)

    def _resources(self, app: App, common: Shared, index: int, folder: Path) -> tuple[list[str], Path | None]:
        """The same for resources."""
        place: tuple[str | int, ...] = ("apps", index, "resourcesPaths")
        base, named = folder, _resources(app)
        found = None if named else resources_of(folder)
        if not named and found is None:
            base, named, place = self._folder, _resources(common), ("common", "resourcesPaths")
        if named:
            return [
                flag for path in named for flag in self._path_flag("resources-path", base, path, place)
            ], None
        found = found or home_resources(self._env)
        return ([], None) if found is None else ([f"--resources-path={found}"], found)

    def _socket(self, app: App, index: int, folder: Path) -> list[str]:
        if not app.unix_domain_socket:
            return []
        place = ("apps", index, "unixDomainSocket")
        return self._path_flag("unix-domain-socket", folder, app.unix_domain_socket, place)

    def _path_flag(self, flag: str, base: Path, text: str, place: tuple[str | int, ...]) -> list[str]:
        """The flag for a path; none for one that does not exist, which `_existing` reports by its place in the file."""
        path = self._existing(base, text, place)
        return [f"--{flag}={path}"] if path.exists() else []

    def _existing(self, base: Path, text: str, place: tuple[str | int, ...]) -> Path:
        path = (base / Path(text).expanduser()).resolve()
        if not path.exists():
            self._fault(place, f"{path} does not exist (expected a path relative to {base})")
        return path

    def _fault(self, place: tuple[str | int, ...], problem: str) -> None:
        fault = self._document.fault(place, problem)
        if fault not in self._faults:
            self._faults.append(fault)


def _of_apps(problem: str, names: Sequence[str]) -> str:
    """One fault of several apps, said once."""
    return problem if len(names) == 1 else f"{problem} (for {len(names)} apps: {', '.join(names)})"


def _ports(app: App) -> list[tuple[str, int]]:
    """The ports that an app and its sidecar listen on, by key; ports picked at random are left out."""
    own_app = None if app.app_channel_address else app.app_port
    ports = [
        ("appPort", own_app),
        ("daprHTTPPort", app.dapr_http_port),
        ("daprGRPCPort", app.dapr_grpc_port),
        ("daprInternalGRPCPort", app.dapr_internal_grpc_port),
        ("metricsPort", app.metrics_port),
    ]
    upstreams = app.upstreams.items() if isinstance(app.upstreams, dict) else ()
    return [(key, port) for key, port in (*ports, *(("upstreams", port) for _, port in upstreams)) if port]


def find_cycle(needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """A cycle among dependencies, its first name repeated at the end; empty if there is none."""
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> tuple[str, ...]:
        if name in way:
            return (*way[way.index(name) :], name)
        if name in done:
            return ()
        found: tuple[str, ...] = ()
        for needed in needs.get(name, ()):
            found = found or walk(needed, (*way, name))
        done.add(name)
        return found

    for name in needs:
        if cycle := walk(name, ()):
            return cycle
    return ()


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _resources(shared: Shared) -> Sequence[str]:
    return shared.resources_paths or ([shared.resources_path] if shared.resources_path else [])


def _routes(routes: dict[str, str] | list[str] | None) -> list[str]:
    return (
        [f"{service}={app}" for service, app in routes.items()]
        if isinstance(routes, dict)
        else list(routes or ())
    )


def _upstreams(common: Shared, app: App) -> list[str]:
    """Upstreams as flags, the app's over the common ones."""
    merged: dict[str, str] = {}
    for shared in (common, app):
        listed = shared.upstreams or {}
        pairs = listed.items() if isinstance(listed, dict) else (text.partition("=")[::2] for text in listed)
        merged.update({name: str(port) for name, port in pairs})
    return [f"{name}={port}" if port else name for name, port in merged.items()]
