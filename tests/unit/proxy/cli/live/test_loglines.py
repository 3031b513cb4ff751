"""Log files as they grow."""

from pathlib import Path

import pytest

from proxy.cli.live.loglines import MAX_LINES, TAIL_BYTES, LogTail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "app.log"
    made.write_bytes(b"")
    return made


def test_lines_are_told_once_they_are_whole(path: Path) -> None:
    tail = LogTail("app", path)
    path.write_bytes(b"one\ntw")
    assert tail.read() == (["one"], 0)
    with path.open("ab") as log:
        log.write(b"o\n")
    assert tail.read() == (["two"], 0)
    assert tail.read() == ([], 0)
    tail.close()


def test_long_file_is_told_from_its_end_with_whole_lines(path: Path) -> None:
    path.write_bytes(b"".join(b"%09d\n" % number for number in range(TAIL_BYTES // 5)))
    tail = LogTail("app", path)
    lines, left_out = tail.read()
    assert len(lines) == MAX_LINES
    assert lines[-1] == f"{TAIL_BYTES // 5 - 1:09}"
    assert left_out == TAIL_BYTES // 10 - MAX_LINES
    tail.close()


def test_line_without_an_end_is_told_in_parts_rather_than_kept(path: Path) -> None:
    path.write_bytes(b"x" * TAIL_BYTES)
    tail = LogTail("app", path)
    assert tail.read() == ([], 0)
    with path.open("ab") as log:
        log.write(b"y")
    (line,), _ = tail.read()
    assert line.startswith("xxx")
    tail.close()


def test_file_that_was_put_aside_is_left_for_the_new_one(path: Path) -> None:
    tail = LogTail("app", path)
    path.write_bytes(b"old\n")
    assert tail.read()[0] == ["old"]
    path.rename(path.with_suffix(".1"))
    path.write_bytes(b"new\n")
    assert tail.read()[0] == []
    assert tail.read()[0] == ["new"]
    tail.close()


def test_what_a_terminal_or_a_page_would_obey_is_an_escape(path: Path) -> None:
    path.write_bytes(b"\x1b[2J\xff\xe2\x80\xae\n")
    tail = LogTail("app", path)
    assert tail.read()[0] == ["\\x1b[2J\ufffd\\u202e"]
    tail.close()


def test_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogTail("app", tmp_path / "none").read()
