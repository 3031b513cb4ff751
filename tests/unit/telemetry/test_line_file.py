"""Where lines of calls go."""

from pathlib import Path

import pytest

from telemetry import line_file
from telemetry.line_file import LineFile


def test_file_keeps_what_is_there_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    file = LineFile(path)
    file.put(b"one\n")
    file.put(b"two\n")
    file.close()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one\ntwo\n", 0o600)
    again = LineFile(path)
    again.put(b"three\n")
    again.close()
    assert path.read_text() == "one\ntwo\nthree\n"


def test_full_file_is_put_aside_and_old_ones_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    for number in range(5):
        file = LineFile(path, limit_bytes=4, keep=2)
        file.put(f"{number}\n".encode() * 2)
        file.close()
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
        "access.jsonl": "4\n4\n",
        "access.jsonl.1": "3\n3\n",
        "access.jsonl.2": "2\n2\n",
    }


def test_file_that_somebody_else_put_aside_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    file = LineFile(path)
    path.rename(tmp_path / "old")
    file.put(b"one\n")
    file.close()
    assert path.read_text() == "one\n"


def test_lines_that_can_not_be_written_or_held_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost: list[int] = []
    full = LineFile(Path("/dev/full"), lost=lost.append)
    full.put(b"one\ntwo\n")
    full.close()
    assert lost == [2]
    monkeypatch.setattr(line_file, "MAX_BYTES", 10)
    slow = LineFile(tmp_path / "x", lost=lost.append)
    slow.put(b"12345678\n")
    slow.put(b"more\n")
    slow.close()
    assert (lost, (tmp_path / "x").read_text()) == ([2, 1], "12345678\n")
