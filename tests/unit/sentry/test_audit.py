"""The audit log: whole lines, private, and loud when it can't be kept."""

import json
from pathlib import Path

import pytest

from sentry.audit import AuditLog
from sentry.errors import StoreError
from tests.unit.sentry.forge import NOW


def test_lines_are_appended_to_what_was_there(tmp_path: Path) -> None:
    for number in (1, 2):
        log = AuditLog(tmp_path / "audit", lambda: NOW)
        log.write("sign", {"n": number, "text": "two\nlines"})
        log.close()
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [line["n"] for line in lines] == [1, 2]
    assert lines[0]["time"] == "2026-03-01T12:00:00.000+00:00"
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o600


def test_log_off_takes_lines_and_keeps_none(tmp_path: Path) -> None:
    log = AuditLog(None, lambda: NOW)
    log.write("sign", {})
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_log_that_can_not_be_opened_or_is_a_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "none" / "audit", tmp_path / "link"):
        with pytest.raises(StoreError):
            AuditLog(path, lambda: NOW)


def test_line_that_can_not_be_written_is_an_error() -> None:
    log = AuditLog(Path("/dev/full"), lambda: NOW)
    with pytest.raises(StoreError, match="No space"):
        log.write("sign", {})
    log.close()
