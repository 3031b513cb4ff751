"""Log files that are read and followed."""

from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace

from nameresolution.host_registry import Entry
from proxy.cli.errors import CliError
from proxy.cli.fleet import unanswered
from proxy.cli.log_sources import Opened, Source, sources_of

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
    with pytest.raises(CliError, match=r"cart: the app's log .*No such file"):
        await opened(tmp_path / "none").history()
    with pytest.raises(CliError, match="does not answer"):
        await opened(None).history()


async def test_last_line_without_an_end_is_read_where_nothing_follows(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("old\nbeg")
    log = opened(path)
    assert (await log.history(goes_on=False))[0] == ["old", "beg"]
    log.close()


async def test_line_without_an_end_is_told_after_silence_and_its_end_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("name? ")
    log = opened(path)
    assert (await log.history())[0] == []
    async with aclosing(log.news()) as news:
        assert await anext(news) == "name? "
        with path.open("a") as file:
            file.write("\nlast\n")
        assert await anext(news) == "last"
    log.close()


async def test_files_that_the_registry_names_are_found_without_asking_and_no_reason_is_empty() -> None:
    hung = replace(ENTRY, app_log="/a", sidecar_log="/s")
    found = await sources_of([hung])
    assert [str(each.path) for each in found.sources] == ["/a", "/s"]
    found = await sources_of([replace(ENTRY, sidecar_log="/s")])
    assert [str(each.path) for each in found.sources] == ["/s"]
    (problem,) = found.problems
    assert problem.startswith("cart (0): no lines of its app: its sidecar does not answer: ")
    assert unanswered(TimeoutError(), 2.0) == "its sidecar does not answer: not within 2 s"
