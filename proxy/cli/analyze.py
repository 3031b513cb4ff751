"""`postern analyze`: what is wrong with Configurations, resources and run files, before anything runs. For CI; touches nothing."""

import os
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec import Struct

from proxy.cli.errors import FAILED, UsageError
from proxy.cli.tables import format_data, put, tell
from telemetry.printable import printable

if TYPE_CHECKING:
    from policies.analysis.codes import Finding
    from policies.analysis.review import Together
    from policies.reading.documents import Document
    from proxy.cli.launch import AppSpec

_SUFFIXES: Final = (".yaml", ".yml")
_MOST_FILES: Final = 5_000  # of a folder; beyond that it is hardly one of ours
_KINDS: Final = frozenset({"Resiliency", "Component", "HTTPEndpoint", "AccessPolicy", "Traffic"})
_SKIPPED: Final = frozenset({"node_modules", "__pycache__"})
_OURS: Final = (b"dapr.io/", b"postern.dev/", b"appID", b"appDirPath")


class Level(Enum):
    """How bad a finding must be for the exit code to be 1."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class AnalyzeOutput(Enum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"


class Files(Struct, kw_only=True):
    """Files by what they hold. Grows while they are looked into; others are counted."""

    configurations: list[Path]
    resources: list[Path]
    run_files: list[Path]
    findings: "list[Finding]"
    others: int = 0

    @property
    def checked(self) -> int:
        """How many were looked into, each once; those with a fault that hides what they hold count, too."""
        ours = (*self.configurations, *self.resources, *self.run_files)
        return len({*ours, *(finding.fault.path for finding in self.findings)})


def analyze(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="files and folders; none: the working directory")
    ] = None,
    level: Annotated[
        Level, typer.Option("--level", help="the least severity that makes the exit code 1")
    ] = Level.ERROR,
    output: Annotated[
        AnalyzeOutput, typer.Option("--output", "-o", help="text or json")
    ] = AnalyzeOutput.TEXT,
) -> None:
    """Check Configurations, AccessPolicies, Traffics, Resiliencies, HTTPEndpoints, Components and run files; 1 if one has an error.

    Example: postern analyze dapr.yaml resources --level warning
    """
    from policies.analysis.codes import SEVERITIES  # noqa: PLC0415 - YAML: other commands do without

    files = sort_files(paths or [Path()])
    checked = files.checked
    if not checked:
        raise no_documents(paths)
    found = look(files, os.environ)
    rows = [finding_row(each) for each in found]
    if output is AnalyzeOutput.JSON:
        put(format_data({"files": checked, "findings": rows}, "json"))
    else:
        for row in rows:
            put(_line(row))
        tell(_summary(rows, checked))
    threshold = SEVERITIES.index(level.value)
    if any(SEVERITIES.index(each.severity) >= threshold for each in found):
        raise typer.Exit(FAILED)


def no_documents(paths: Sequence[Path] | None) -> UsageError:
    """What to say where there is nothing to look at."""
    return UsageError(
        f"no postern document in {', '.join(map(str, paths or [Path.cwd()]))}",
        hint="name files or folders with a Configuration, AccessPolicy, Traffic, Resiliency, HTTPEndpoint, Component or run file",
    )


def finding_row(finding: "Finding") -> dict[str, Any]:
    """A finding for scripts."""
    fault = finding.fault
    return {
        "code": finding.code,
        "severity": finding.severity,
        "path": shown(fault.path),
        "line": fault.line,
        "field": fault.field,
        "message": fault.problem,
    }


def shown(path: Path) -> str:
    """Relative to the working directory where it is below: that is how CI names files."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _line(row: Mapping[str, Any]) -> str:
    """As compilers write it, so that editors and CI find the place."""
    line = f":{row['line']}" if row["line"] else ""
    field = f"{row['field']}: " if row["field"] else ""
    return printable(f"{row['path']}{line}: {row['severity']} {row['code']}: {field}{row['message']}")


def _summary(rows: Sequence[Mapping[str, Any]], checked: int) -> str:
    counts = [
        (name, sum(1 for row in rows if row["severity"] == name)) for name in ("error", "warning", "info")
    ]
    told = ", ".join(
        f"{count} {name}{'s' if count != 1 and name != 'info' else ''}" for name, count in counts if count
    )
    files = "1 file" if checked == 1 else f"{checked} files"
    return f"{files}: {told or 'nothing to say'}"


def sort_files(paths: Sequence[Path]) -> Files:
    """Look into files, and into folders and all below them; what is neither, such as a pipe, is left out, which is said.

    Raises: UsageError for a path that is not there, or names what is neither.
    """
    files = Files(configurations=[], resources=[], run_files=[], findings=[])
    seen: set[Path] = set()
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"{path}: no such file or folder")
        if _is_odd(path):
            raise UsageError(f"{path}: is neither a regular file nor a folder")
        for file in _below(path) if os.path.isdir(path) else (path,):
            if (real := _real(file)) not in seen:
                seen.add(real)
                _sort(file.absolute(), files, is_named=file == path)
    return files


def _real(path: Path) -> Path:
    """Where links lead to; those that lead in a circle stay."""
    return Path(os.path.realpath(path))


def _is_odd(path: Path) -> bool:
    """Whether it is neither a file nor a folder: a pipe may be read for ever. Of a link that leads nowhere, reading says why."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _below(folder: Path) -> Iterator[Path]:
    count = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _SKIPPED and (not name.startswith(".") or name == ".dapr")
        )
        for name in sorted(names):
            if name.endswith(_SUFFIXES):
                count += 1
                if count > _MOST_FILES:
                    raise UsageError(
                        f"{folder}: more than {_MOST_FILES} YAML files", hint="name a smaller folder"
                    )
                if _is_odd(path := Path(where, name)):
                    tell(printable(f"{shown(path)}: left out, as it is not a regular file"))
                else:
                    yield path


def _sort(path: Path, files: Files, *, is_named: bool) -> None:
    from policies.analysis.codes import classify  # noqa: PLC0415 - see above
    from policies.errors import DocumentError, Fault  # noqa: PLC0415 - see above
    from policies.reading.documents import read_partly  # noqa: PLC0415 - see above

    try:
        documents, faults = read_partly(path, None)
    except DocumentError as error:
        if is_named or _looks_ours(path):
            files.findings += [classify(fault, is_warning=False) for fault in error.faults]
        return
    kinds = {_kind(document) for document in documents}
    if faults and (is_named or kinds & {"Configuration", "run file", *_KINDS}):
        files.findings += [classify(fault, is_warning=False) for fault in faults]
    if "Configuration" in kinds:
        files.configurations.append(path)
    if kinds & _KINDS:
        files.resources.append(path)
    if "run file" in kinds:
        files.run_files.append(path)
    if not kinds & {"Configuration", "run file", *_KINDS}:
        files.others += 1
        if is_named and not faults:
            problem = (
                "is not a postern document (expected a kind such as Configuration, or a run file with apps)"
            )
            files.findings.append(
                classify(Fault(path=path, line=0, field="", problem=problem), is_warning=False)
            )


def _looks_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(65_536)
            return any(ours in start for ours in _OURS)
    except OSError:
        return True


def _kind(document: "Document") -> str:
    value = document.value
    if not isinstance(value, dict):
        return ""
    if "kind" not in value and isinstance(value.get("apps"), list):
        return "run file"
    if isinstance(value.get("apiVersion"), str) and not value["apiVersion"].startswith(
        ("dapr.io/", "postern.dev/")
    ):
        return ""
    return str(value.get("kind", ""))


def look(files: Files, env: Mapping[str, str]) -> "tuple[Finding, ...]":
    """Everything that is wrong: of each app of a run file as its sidecar reads it, and of what no run file names by itself."""
    from policies.analysis.review import ordered, review  # noqa: PLC0415 - see above

    found: list[Finding] = list(files.findings)
    sets: list[Together] = []
    for path in files.run_files:
        sets += _of_run_file(path, env, found)
    read = {_real(path) for each in sets for path in (*each.config_paths, *each.resource_files)}
    resources = [path for path in files.resources if _real(path) not in read]
    configurations = [path for path in files.configurations if _real(path) not in read]
    sets += _alone(configurations, resources, files.resources, env)
    return ordered(tuple(dict.fromkeys([*found, *review(sets)])))


def _alone(
    configurations: Sequence[Path], resources: Sequence[Path], beside: Sequence[Path], env: Mapping[str, str]
) -> "Iterable[Together]":
    """Each Configuration with all resources: it is one app's, and which resources that has nobody says."""
    from policies.analysis.review import Together  # noqa: PLC0415 - see above
    from policies.reading.compile_access import AccessContext  # noqa: PLC0415 - see above

    context = AccessContext(
        own_app_id="",
        own_namespace="default",
        own_trust_domain=None,
        is_trust_domain_given=False,
        app_protocol="http",
        profile="dev",
        mtls=True,
    )
    for path in configurations:
        yield Together(config_paths=(path,), resource_files=tuple(beside), context=context, env=env)
    if resources and not configurations:
        yield Together(config_paths=(), resource_files=tuple(resources), context=context, env=env)


def _of_run_file(path: Path, env: Mapping[str, str], found: "list[Finding]") -> "list[Together]":
    from policies.analysis.codes import classify  # noqa: PLC0415 - see above
    from policies.errors import DocumentError  # noqa: PLC0415 - see above
    from proxy.cli.runfile import load, specs_of  # noqa: PLC0415 - see above

    # Reading a sidecar's flags makes its runtime root: not the user's.
    with tempfile.TemporaryDirectory(prefix="postern-analyze-") as root:
        try:
            document, run_file = load(path)
            specs = specs_of(
                document,
                run_file,
                path.parent,
                flags=(),
                env={**env, "POSTERN_HOME": root},
                chance=random.Random(0),  # noqa: S311 - free ports, which nobody listens on here
            )
        except DocumentError as error:
            found += [classify(fault, is_warning=False) for fault in error.faults]
            return []
    found += _ports(document, specs)
    known = frozenset(spec.app_id for spec in specs)
    return [_together(spec, known, env) for spec in specs]


def _together(spec: "AppSpec", known: frozenset[str], env: Mapping[str, str]) -> "Together":
    from policies.analysis.review import Together  # noqa: PLC0415 - see above
    from policies.reloading.loading import access_context, resource_files  # noqa: PLC0415 - see above
    from proxy.control.policy_sources import policy_sources  # noqa: PLC0415 - see above

    sources = policy_sources(spec.settings)
    return Together(
        config_paths=sources.config_paths,
        resource_files=resource_files(sources.resources_paths)[0],
        context=access_context(sources),
        env={**sources.env, **env},
        known=known,
    )


def _ports(document: "Document", specs: "Sequence[AppSpec]") -> "Iterator[Finding]":
    """Ports in an app's environment that contradict its keys: the app listens or calls where its sidecar is not."""
    from policies.analysis.codes import found  # noqa: PLC0415 - see above

    for number, spec in enumerate(specs):
        settings = spec.settings
        written = {
            "APP_PORT": None if spec.chosen_port else settings.app_port,
            "PORT": None if spec.chosen_port else settings.app_port,
            "DAPR_HTTP_PORT": settings.http_port.number if not settings.http_port.fallback else None,
            "DAPR_GRPC_PORT": settings.grpc_port.number if not settings.grpc_port.fallback else None,
        }
        for name, port in written.items():
            given = spec.env.get(name)
            if given is not None and port and given != str(port):
                problem = f"is {given}, but the key beside it says {port} (expected the same, or no variable: it is set)"
                yield found("PST0506", document.fault(("apps", number, "env", name), problem))
