"""`postern fmt`: Configurations, resources and run files in canonical form. What it can't format safely stays as it is."""

import difflib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import typer

from proxy.cli.analyze import sort_files
from proxy.cli.errors import FAILED, CliError, UsageError
from proxy.cli.tables import put, tell
from telemetry.printable import printable, printable_lines


def fmt(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="files and folders, or - for standard input to output; none: the working directory"
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; 1 if a file is not canonical")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="write nothing, and show what would change; 1 if anything would")
    ] = False,
) -> None:
    """Write Configurations, resources and run files in canonical form: keys in the order of their schema, two spaces, comments kept.

    What they mean never changes; a file with anchors, aliases or tags stays as it is.

    Example: postern fmt --check resources dapr.yaml
    """
    paths = paths or [Path()]
    if paths == [Path("-")]:
        sys.stdout.write(_made(Path("<stdin>"), sys.stdin.buffer).text)
        return
    files = _files(paths)
    changed = failed = 0
    for path in files:
        try:
            with path.open("rb") as file:
                made = _made(path, file)
        except CliError as error:
            tell(str(error))
            failed += 1
            continue
        except OSError as error:
            tell(f"{path}: {error.strerror}")
            failed += 1
            continue
        if made.text == made.source:
            continue
        changed += 1
        if diff:
            put(printable_lines(_diff(path, made.source, made.text)))
        elif check:
            put(printable(path))
        else:
            _write(path, made.text)
            put(printable(path))
    verb = "would be changed" if check or diff else "changed"
    tell(
        f"{len(files)} file{'s' * (len(files) != 1)}: {changed} {verb}"
        + (f", {failed} left as they are" if failed else "")
    )
    if failed or (changed and (check or diff)):
        raise typer.Exit(FAILED)


def _files(paths: Sequence[Path]) -> list[Path]:
    """Those of postern's that are named or below. Raises: UsageError, where there is none."""
    found = sort_files(paths)
    files = dict.fromkeys(path for path in paths if path.is_file())
    ours = {*found.configurations, *found.resources, *found.run_files}
    named = {path.absolute() for path in files}
    below = sorted(path for path in ours if path not in named)
    if not files and not below:
        raise UsageError(f"no postern document in {', '.join(map(str, paths))}")
    return [*files, *below]


class _Made(NamedTuple):
    source: str
    text: str


def _made(path: Path, file: BinaryIO) -> _Made:
    """Raises: CliError, where it can't be formatted; OSError."""
    from policies.errors import DocumentError  # noqa: PLC0415 - YAML: other commands do without
    from policies.reading.documents import MAX_FILE_BYTES  # noqa: PLC0415 - as above
    from proxy.cli.formatting import UnformattableError, formatted  # noqa: PLC0415 - as above

    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise CliError(f"{path}: is too large (expected at most {MAX_FILE_BYTES} bytes)")
    try:
        source = data.decode()
        return _Made(source, formatted(source))
    except UnicodeDecodeError as error:
        raise CliError(f"{path}: is not UTF-8") from error
    except DocumentError as error:
        fault = error.faults[0]
        raise CliError(
            f"{path}:{fault.line}: {fault.field}{': ' if fault.field else ''}{fault.problem}"
        ) from error
    except UnformattableError as error:
        raise CliError(f"{path}: stays as it is: {error}") from error


def _diff(path: Path, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), f"{path} (formatted)"
    )
    return "".join(lines).rstrip("\n")


def _write(path: Path, text: str) -> None:
    """In one step, so that nobody reads half a file. Links are followed, and hard ones stay, in two steps then. Raises: OSError."""
    target = path.resolve()
    if target.stat().st_nlink > 1:
        target.write_text(text, encoding="utf-8", newline="")
        return
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".postern-fmt-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        owned = target.stat()
        os.chmod(name, owned.st_mode & 0o7777)
        if os.geteuid() == 0:
            os.chown(name, owned.st_uid, owned.st_gid)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
