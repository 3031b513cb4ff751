from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nameresolution.errors import RuntimeRootError
from nameresolution.runtime_root import check, choose, runtime_root


@pytest.mark.parametrize(
    ("explicit", "env", "expected"),
    [
        ("/a", {"POSTERN_HOME": "/b", "XDG_RUNTIME_DIR": "/run/user/1"}, "/a"),
        (None, {"POSTERN_HOME": "/b", "XDG_RUNTIME_DIR": "/run/user/1"}, "/b"),
        (None, {"XDG_RUNTIME_DIR": "/run/user/1", "XDG_STATE_HOME": "/s"}, "/run/user/1/postern"),
        (None, {"XDG_RUNTIME_DIR": "relative", "XDG_STATE_HOME": "/s"}, "/s/postern"),
        (None, {"HOME": "/home/u"}, "/home/u/.local/state/postern"),
        ("", {"POSTERN_HOME": "", "HOME": "/home/u"}, "/home/u/.local/state/postern"),
    ],
)
def test_choose_follows_the_order_of_precedence(
    explicit: str | None, env: dict[str, str], expected: str
) -> None:
    assert choose(explicit, env) == Path(expected)


def test_runtime_root_is_made_private(tmp_path: Path) -> None:
    root = runtime_root(None, {"XDG_STATE_HOME": str(tmp_path / "state")})
    assert root == tmp_path / "state" / "postern"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert runtime_root(str(root), {}) == root


def test_runtime_root_open_to_others_is_refused_with_the_fix(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o750)
    with pytest.raises(RuntimeRootError, match=r"mode 0750.*chmod 700"):
        runtime_root(str(loose), {})


def test_runtime_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeRootError, match="--runtime-path"):
        runtime_root(str(tmp_path / "file"), {})


def test_check_refuses_another_users_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(RuntimeRootError, match="belongs to user"):
        check(tmp_path, tmp_path.stat(), os.geteuid() + 1)
