"""Log files that are read and followed."""

from contextlib import aclosing
from pathlib import Path

import pytest

from nameresolution.host_registry import Entry
from proxy.cli.errors import CliError
from proxy.cli.log_sources import Opened, Source

ENTRY = Entry(app_id="cart", instance="i", peer_port=1, admin_socket="/nowhere")


def opened(path: Path | None) -> Opened:
    return Opened(Source(entry=ENTRY, kind="app", path=path))


async def test_files_that_were_put_aside_come_first(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    for name, text in (("app.log.2", "1\n"), ("app.log.1", "2\n3\n"), ("app.log", "4\nbeg")):
        (tmp_path / name).write_text(text)
    log = opened(path)
    lines, at = await log.history()
    assert (lines, at) == (["1", "2", "3", "4"], path.stat().st_mtime)
    log.close()


async def test_file_is_followed_into_the_new_one_without_losing_a_line(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("old\nbeg")
    log = opened(path)
    assert (await log.history())[0] == ["old"]
    async with aclosing(log.news()) as news:
        with path.open("a") as file:
            file.write("un\nlast\n")
        path.rename(tmp_path / "app.log.1")
        path.write_text("new\n")
        assert [await anext(news) for _ in range(3)] == ["begun", "last", "new"]
    log.close()


async def test_file_that_is_gone_and_sidecar_that_is_gone_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="No such file"):
        await opened(tmp_path / "none").history()
    with pytest.raises(CliError, match="does not answer"):
        await opened(None).history()
