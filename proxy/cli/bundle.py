"""`postern bundle`: an archive for whoever helps: checks, versions, what sidecars say and keep, their files and logs; no secrets."""

import asyncio
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.cli.config import shown
from proxy.cli.errors import CliError
from proxy.cli.fleet import SidecarAnswer, ask, entries, root_of
from proxy.cli.listing import extended
from proxy.cli.log_sources import Opened, Source
from proxy.cli.options import RuntimePath
from proxy.cli.redaction import redact, redact_text
from proxy.cli.tables import put, tell
from proxy.settings.version import build_info
from proxy.wire.http_client import request
from telemetry.printable import printable

_ASK_S: Final = 2.0
_LOG_LINES: Final = 500  # of each file: a few minutes of a busy sidecar
_LINE_CHARS: Final = 4_096
_TAIL_BYTES: Final = 4 << 20  # that are read of a log
_FILE_BYTES: Final = 1 << 20  # of each member: an archive is sent by mail
_PAGES: Final = {
    "status": "/status",
    "metadata": "/metadata",
    "endpoints": "/endpoints",
    "dump": "/postern/v1/dump",
    "edges": "/postern/v1/edges",
    "traces": "/postern/v1/traces",
}
_README: Final = """What `postern bundle` packed. Tokens, keys, passwords, values of headers, of variables and of components' settings are
replaced by (removed), and so is what looks like a token. No certificate and no private key is in here. What apps wrote themselves
(app.log) is theirs: its last lines are here where `postern run` keeps them in a file, unless --no-app-logs was given.
Look through it before you send it.
"""


class Member(Struct, frozen=True, kw_only=True):
    """One file of the archive."""

    name: str
    content: bytes


def bundle(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="the archive to write; must not exist yet")
    ] = None,
    app_logs: Annotated[
        bool, typer.Option("--app-logs/--no-app-logs", help="with the last lines that apps wrote")
    ] = True,
    runtime_path: RuntimePath = None,
) -> None:
    """Pack what it takes to diagnose a problem into one archive, without secrets, and list what is inside.

    Example: postern bundle --out problem.tar.gz
    """
    root = root_of(runtime_path, os.environ)
    path = out or Path(f"postern-bundle-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    members = asyncio.run(gather(root, app_logs=app_logs))
    try:
        write(path, members)
    except FileExistsError as error:
        raise CliError(f"{path} is there already", hint="choose another name with --out") from error
    for member in members:
        put(printable(f"{len(member.content):>8}  {member.name}"))
    tell(
        f"✓ {path.absolute()}: look through it before you send it; secrets were removed as far as their names or shapes show them"
    )


def write(path: Path, members: Sequence[Member]) -> None:
    """A new archive that only this user can read. Raises: OSError, FileExistsError for one that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for member in members:
            facts = tarfile.TarInfo(f"postern-bundle/{member.name}")
            facts.size, facts.mode, facts.mtime = len(member.content), 0o600, int(time.time())
            archive.addfile(facts, io.BytesIO(member.content))


async def gather(root: Path, *, app_logs: bool = True) -> tuple[Member, ...]:
    """Everything that goes in. What can't be had is left out, and the checks say why."""
    from proxy.cli.check import render  # noqa: PLC0415 - certificates and TLS
    from proxy.cli.checks.looking import Scope, look  # noqa: PLC0415 - as above
    from sentry.local import LocalPaths  # noqa: PLC0415 - as above

    try:
        listed = entries(root)
    except OSError:
        listed = ()
    async with asyncio.TaskGroup() as tasks:
        checking = tasks.create_task(look(Scope(root=root)))
        asking = {
            page: tasks.create_task(ask(listed, target, timeout_s=_ASK_S)) for page, target in _PAGES.items()
        }
        measuring = [tasks.create_task(_metrics(entry)) for entry in listed]
        showing = tasks.create_task(shown(listed))
    found = checking.result()
    members = [
        _text("README.txt", _README),
        _text("version.txt", build_info()),
        _text("check.txt", "\n".join(render(found, 120, is_coloured=False))),
        _json("check.json", [{"id": each.id, "state": each.state, "text": each.text} for each in found]),
    ]
    for number, entry in enumerate(listed):
        folder = f"{_safe(entry.app_id)}.{_safe(entry.namespace)}-{_safe(entry.instance[:8])}"
        for page, task in asking.items():
            members.append(_json(f"{folder}/{page}.json", _known(task.result()[number])))
        members.append(_json(f"{folder}/config.json", showing.result()[number]))
        members.append(_text(f"{folder}/metrics.txt", measuring[number].result()))
        told = extended(asking["metadata"].result()[number])
        settings = showing.result()[number]["settings"]
        members += await asyncio.to_thread(_documents, settings, folder)
        if file := told.get("daprdLogPath", ""):
            members += await asyncio.to_thread(_log, file, f"{folder}/sidecar.log")
        else:
            members.append(await _kept_log(entry, f"{folder}/sidecar.log"))
        if app_logs:
            path = _app_log(told.get("appLogPath", ""), entry.app_id)
            members += await asyncio.to_thread(_log, path, f"{folder}/app.log")
    members += await asyncio.to_thread(_log, str(LocalPaths(root=root).log), "sentry.log")
    return tuple(members)


def _known(answered: SidecarAnswer) -> object:
    return answered.answer if answered.answer is not None else {"answers": False}


async def _metrics(entry: Entry) -> str:
    try:
        response = await request(f"unix:{entry.admin_socket}", "GET", "/metrics", timeout_s=_ASK_S)
    except (OSError, TimeoutError, ValueError) as error:
        return f"# {error}"
    return response.body.decode("utf-8", "replace")


def _documents(settings: Sequence[Mapping[str, Any]], folder: str) -> list[Member]:
    return list(_packed(settings, folder))


def _packed(settings: Sequence[Mapping[str, Any]], folder: str) -> Iterator[Member]:
    """Configurations and resources, written anew without secrets and comments."""
    from policies.errors import DocumentError  # noqa: PLC0415 - YAML
    from policies.reading.documents import read_documents  # noqa: PLC0415 - as above
    from policies.reloading.loading import resource_files  # noqa: PLC0415 - as above

    told = {
        row["name"]: [Path(path) for path in row["value"] or ()] for row in settings if row["name"] in _PATHS
    }
    try:
        resources = resource_files(tuple(told.get("resources-path", ())))[0]
    except DocumentError as error:
        yield _text(f"{folder}/resources/unreadable.txt", str(error))
        resources = ()
    for kind, paths in (("configuration", told.get("config", ())), ("resources", resources)):
        for number, path in enumerate(paths):
            name = f"{folder}/{kind}/{number}-{_safe(path.name)}"
            try:
                documents = read_documents(path, None)
            except DocumentError as error:
                yield _text(f"{name}.txt", f"not included, as it can't be read: {error.faults[0].problem}")
                continue
            yield _text(name, _yaml([redact(document.value) for document in documents]))


_PATHS: Final = frozenset({"config", "resources-path"})


def _yaml(documents: Sequence[object]) -> str:
    import yaml  # noqa: PLC0415 - only here

    text: str = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=False)
    return text


def _app_log(path: str, app_id: str) -> str:
    """The path, if it is one that `postern run` gives an app's output: an app may name any other in its metadata."""
    name = os.path.basename(path)
    return path if name.startswith(f"{app_id}_app_") and name.endswith(".log") else ""


def _log(path: str, name: str) -> list[Member]:
    """The last lines of a log, as far as they stand at its end: one that nobody rotates may be large."""
    if not path or not os.path.isfile(path):
        return []
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return [_text(name, f"{path}: {error.strerror}")]
    return [_text(name, _last(text.splitlines()))]


async def _kept_log(entry: Entry, name: str) -> Member:
    """The last lines of a sidecar that logs into no file."""
    try:
        lines, _ = await Opened(Source(entry=entry, kind="sidecar", path=None)).history()
    except CliError as error:
        return _text(name, str(error))
    return _text(name, _last(lines))


def _last(lines: Sequence[str]) -> str:
    return "\n".join(line[:_LINE_CHARS] for line in lines[-_LOG_LINES:])


def _safe(name: str) -> str:
    """As a part of a path in the archive: no way out of its folder."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in name)
    return kept.lstrip(".")[:64] or "_"


def _json(name: str, value: object) -> Member:
    return Member(name=name, content=json.dumps(redact(value), indent=2).encode()[:_FILE_BYTES])


def _text(name: str, text: str) -> Member:
    return Member(name=name, content=f"{redact_text(text)}\n".encode("utf-8", "replace")[-_FILE_BYTES:])
