"""Where lines of an app and its sidecar are: in files with those that were put aside when full, and in the sidecar's memory."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from msgspec import Struct

from nameresolution.host_registry import Entry
from proxy.cli.errors import CliError
from proxy.cli.fleet import ask
from proxy.cli.listing import extended
from proxy.cli.output import LOG_FILES
from proxy.wire.http_client import request
from proxy.wire.http_stream import open_stream

LOGS = "/postern/v1/logs"
NEXT = b"postern-next-line"
_ASK_S = 2.0
_POLL_S = 0.2

Kind = Literal["app", "sidecar"]
_TOLD: tuple[tuple[Kind, str], ...] = (("app", "appLogPath"), ("sidecar", "daprdLogPath"))


class Source(Struct, frozen=True, kw_only=True):
    """Lines of one kind of one sidecar. path: of the file; None: the sidecar has them in memory."""

    entry: Entry
    kind: Kind
    path: Path | None


async def sources_of(found: Sequence[Entry], *, app: bool, sidecar: bool) -> tuple[list[Source], list[Entry]]:
    """The sources of these sidecars, by what each was told of its run, and those whose app's lines nobody keeps."""
    sources: list[Source] = []
    unkept: list[Entry] = []
    for answered in await ask(found, "/metadata", timeout_s=_ASK_S):
        told = extended(answered)
        for kind, key in _TOLD:
            if not (app if kind == "app" else sidecar):
                continue
            path = Path(told[key]) if told.get(key) else None
            if path is None and kind == "app":
                unkept.append(answered.entry)
            else:
                sources.append(Source(entry=answered.entry, kind=kind, path=path))
    return sources, unkept


class Opened:
    """One source that is read: first what there is, then what comes.

    Mutable state: the open file with the beginning of a line whose end is not written yet, or the number of the next line.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._stream: IO[str] | None = None
        self._begun = ""
        self._next = 0

    async def history(self) -> tuple[list[str], float]:
        """What there is, and when it was written where no line says. Raises: CliError."""
        if self.source.path is None:
            return await self._kept(), self.source.entry.started_at
        try:
            return await asyncio.to_thread(self._read, self.source.path)
        except OSError as error:
            raise CliError(f"{self.source.path}: {error.strerror}") from error

    async def news(self) -> AsyncGenerator[str]:
        """Lines as they come, after `history`, until the sidecar has ended or, of a file, without end. Raises: OSError."""
        path, entry = self.source.path, self.source.entry
        if path is None:
            target = f"{LOGS}?follow=1&from={self._next}"
            async with open_stream(f"unix:{entry.admin_socket}", target, timeout_s=_ASK_S) as stream:
                async for data in stream.lines():
                    yield data.decode("utf-8", "replace").removesuffix("\n")
            return
        while True:
            lines = await asyncio.to_thread(self._more, path)
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
            raise CliError(f"{entry.app_id}: sidecar {entry.pid} does not answer: {error}") from error
        if response.status != 200:
            hint = "restart it with this version, or see where it was started"
            raise CliError(f"{entry.app_id}: its sidecar keeps no log lines", hint=hint)
        self._next = int(dict(response.headers).get(NEXT, b"0"))
        return response.body.decode("utf-8", "replace").splitlines()

    def _read(self, path: Path) -> tuple[list[str], float]:
        lines: list[str] = []
        for older in put_aside(path):
            with older.open(encoding="utf-8", errors="replace") as stream:
                lines += stream.read().split("\n")[:-1]
        self._stream = path.open(encoding="utf-8", errors="replace")
        return [*lines, *self._whole()], os.fstat(self._stream.fileno()).st_mtime

    def _whole(self) -> list[str]:
        assert self._stream is not None
        *lines, self._begun = (self._begun + self._stream.read()).split("\n")
        return lines

    def _more(self, path: Path) -> list[str]:
        assert self._stream is not None
        lines = self._whole()
        if not lines and is_replaced(path, self._stream):
            lines = self._whole()  # what came between
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
