"""The archive, where nothing runs, and what is made of hostile names."""

import tarfile
from pathlib import Path

import pytest

from proxy.cli.__main__ import main
from proxy.cli.bundle import Member, _safe, write


def test_where_nothing_runs_the_checks_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    (root / "sentry").mkdir(mode=0o700, parents=True)
    root.chmod(0o700)
    (root / "sentry" / "sentry.log").write_text("Authorization: Bearer hunter2\n")
    path = tmp_path / "b.tar.gz"
    assert main(["bundle", "-o", str(path), "--runtime-path", str(root)]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines()] == [
        "README.txt",
        "version.txt",
        "check.txt",
        "check.json",
        "sentry.log",
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        log = archive.extractfile("postern-bundle/sentry.log")
        assert log is not None
        assert log.read() == b"Authorization: (removed) (removed)\n"
    assert main(["bundle", "-o", str(path), "--runtime-path", str(root)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_archive_never_replaces_or_follows(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="File exists"):
        write(tmp_path / "link", (Member(name="x", content=b"x"),))
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "safe"), [("cart", "cart"), ("../../etc", "_.._etc"), ("a/b\n", "a_b_"), ("", "_"), ("..", "_")]
)
def test_name_stays_in_its_folder(name: str, safe: str) -> None:
    assert _safe(name) == safe
