"""Where lines of an app and its sidecar are: in files with those that were put aside when full, and in the sidecar's memory."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.cli.errors import CliError
from proxy.cli.fleet import ask, unanswered
from proxy.cli.listing import extended
from proxy.cli.output import LOG_FILES
from proxy.wire.http_client import request
from proxy.wire.http_stream import open_stream

LOGS = "/postern/v1/logs"
NEXT = b"postern-next-line"
_ASK_S = 2.0
_POLL_S = 0.2
_SILENT_POLLS = (
    5  # a line without an end is shown as it is after a second without more of it, as a prompt would be
)

Kind = Literal["app", "sidecar"]
_TOLD: dict[Kind, str] = {"app": "appLogPath", "sidecar": "daprdLogPath"}


class Source(Struct, frozen=True, kw_only=True):
    """Lines of one kind of one sidecar. path: of the file; None: the sidecar has them in memory."""

    entry: Entry
    kind: Kind
    path: Path | None


class Found(Struct, frozen=True, kw_only=True):
    """Where lines are. unkept: sidecars whose app's lines nobody keeps. problems: why lines of others can't be found, a line for each."""

    sources: list[Source]
    unkept: list[Entry]
    problems: list[str]


async def sources_of(found: Sequence[Entry], kinds: Sequence[Kind] = ("app", "sidecar")) -> Found:
    """Sources of these kinds: files that the registry names, without asking; else those that a sidecar says it was told of."""
    unsaid = [entry for entry in found if not all(_registered(entry, kind) for kind in kinds)]
    answers = {each.entry.instance: each for each in await ask(unsaid, "/metadata", timeout_s=_ASK_S)}
    made = Found(sources=[], unkept=[], problems=[])
    for entry in found:
        answered = answers.get(entry.instance)
        told = extended(answered) if answered is not None else {}
        for kind in kinds:
            path = _registered(entry, kind) or told.get(_TOLD[kind], "")
            if path or (kind == "sidecar" and not (answered and answered.problem)):
                made.sources.append(Source(entry=entry, kind=kind, path=Path(path) if path else None))
            elif answered is not None and answered.problem:
                made.problems.append(
                    f"{entry.app_id} ({entry.pid}): no lines of its {kind}: {answered.problem}"
                )
            elif entry.app_port or entry.app_pid:
                made.unkept.append(entry)
    return made


def _registered(entry: Entry, kind: Kind) -> str:
    return entry.app_log if kind == "app" else entry.sidecar_log


class Opened:
    """One source that is read: first what there is, then what comes.

    Mutable state: the open file with the beginning of a line whose end is not written yet and whether it was told, or the number of
    the next line.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._stream: IO[str] | None = None
        self._begun = ""
        self._is_begun_told = False
        self._next = 0

    async def history(self, *, goes_on: bool = True) -> tuple[list[str], float]:
        """What there is, and when it was written where no line says. goes_on: `news` follows, and has a last line without an end.

        Raises: CliError.
        """
        if self.source.path is None:
            return await self._kept(), self.source.entry.started_at
        try:
            lines, at = await asyncio.to_thread(self._read, self.source.path)
        except OSError as error:
            source = self.source
            what = f"{source.entry.app_id}: the {source.kind}'s log {source.path}"
            raise CliError(f"{what}: {error.strerror or error}") from error
        return lines if goes_on else [*lines, *self._rest()], at

    async def news(self) -> AsyncGenerator[str]:
        """Lines as they come, after `history`, until the sidecar has ended or, of a file, without end. Raises: OSError."""
        path, entry = self.source.path, self.source.entry
        if path is None:
            target = f"{LOGS}?follow=1&from={self._next}"
            async with open_stream(f"unix:{entry.admin_socket}", target, timeout_s=_ASK_S) as stream:
                async for data in stream.lines():
                    yield data.decode("utf-8", "replace").removesuffix("\n")
            return
        silent = 0
        while True:
            before = self._begun
            lines = await asyncio.to_thread(self._more, path)
            silent = silent + 1 if not lines and self._begun == before else 0
            if silent >= _SILENT_POLLS:
                lines = self._rest()
            for line in lines:
                yield line
            if not lines:
                await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()

    async def _kept(self) -> list[str]:
        entry = self.source.entry
        try:
            response = await request(f"unix:{entry.admin_socket}", "GET", LOGS, timeout_s=_ASK_S)
        except (OSError, TimeoutError, ValueError) as error:
            problem = unanswered(error, _ASK_S)
            raise CliError(f"{entry.app_id} ({entry.pid}): no lines of its sidecar: {problem}") from error
        if response.status != 200:
            hint = "restart it with this version, or see where it was started"
            raise CliError(f"{entry.app_id}: its sidecar keeps no log lines", hint=hint)
        self._next = int(dict(response.headers).get(NEXT, b"0"))
        return response.body.decode("utf-8", "replace").splitlines()

    def _read(self, path: Path) -> tuple[list[str], float]:
        lines: list[str] = []
        for older in put_aside(path):
            with older.open(encoding="utf-8", errors="replace") as stream:
                lines += stream.read().removesuffix("\n").split("\n")
        self._stream = path.open(encoding="utf-8", errors="replace")
        return [*lines, *self._whole()], os.fstat(self._stream.fileno()).st_mtime

    def _whole(self) -> list[str]:
        assert self._stream is not None
        *lines, self._begun = (self._begun + self._stream.read()).split("\n")
        if lines and self._is_begun_told:
            self._is_begun_told = False
            return lines if lines[0] else lines[1:]
        return lines

    def _rest(self) -> list[str]:
        """The line whose end is not written yet, as far as it goes; its end, if it comes, is no line of its own."""
        rest, self._begun = self._begun, ""
        self._is_begun_told = self._is_begun_told or bool(rest)
        return [rest] if rest else []

    def _more(self, path: Path) -> list[str]:
        assert self._stream is not None
        lines = self._whole()
        if not lines and is_replaced(path, self._stream):
            lines = [*self._whole(), *self._rest()]  # what came between
            self._is_begun_told = False
            self._stream.close()
            self._stream = path.open(encoding="utf-8", errors="replace")
        return lines


def put_aside(path: Path) -> list[Path]:
    """The files that were full, the oldest first; `--log-file`s that others rotate are named likewise, as a rule."""
    older = (path.with_name(f"{path.name}.{number}") for number in range(LOG_FILES, 0, -1))
    return [each for each in older if each.is_file()]


def is_replaced(path: Path, stream: IO[Any]) -> bool:
    """Whether the path leads to another file than the one that is open: a full log was put aside."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except OSError:
        return False
