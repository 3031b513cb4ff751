"""What tests of the command have in common."""

from pathlib import Path

import pytest


@pytest.fixture
def at_home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user in whose home `dapr init` was run."""
    folder = tmp_path / "home" / ".dapr"
    (folder / "components").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    return {"POSTERN_HOME": str(tmp_path / "root"), "HOME": str(tmp_path / "home")}
