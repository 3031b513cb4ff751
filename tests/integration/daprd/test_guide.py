"""The commands of the guide for those who come from Dapr, as its page gives them, with ports of the test's own."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.daprd import DAPRD, reason_missing
from tests.support.engines import ENGINES
from tests.support.ports import free_ports

pytestmark = [
    pytest.mark.skipif(reason_missing() is not None, reason=str(reason_missing())),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
GUIDE: Final = Path(__file__).parents[3] / "examples" / "from_dapr"
PORTS: Final = ("50005", "8085", "8081", "8082", "3501", "3502", "50011", "50012")
EXPECTED: Final = re.compile(r"^curl .*# (.+)$", re.MULTILINE)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with Dapr's programs where its installer puts them, short enough for unix sockets."""
    path = Path(tempfile.mkdtemp(prefix="fd-"))
    (path / ".dapr").mkdir()
    (path / ".dapr" / "bin").symlink_to(DAPRD.parent)
    shutil.copytree(GUIDE, path / "guide")
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_step_of_the_guide_prints_what_it_says(home: Path, engine: str) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (GUIDE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    script = "".join(blocks)
    expected = EXPECTED.findall(script)
    for named, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
        script = script.replace(named, str(free))
    done = subprocess.run(
        ["bash", "-c", f"trap 'kill $(jobs -p)' EXIT\n{script}"],
        cwd=home / "guide",
        env={
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "POSTERN_ENGINE": engine,
            "POSTERN_HOME": str(home / "root"),
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    logs = "".join(f"--- {log.name}\n{log.read_text()}" for log in (home / "guide" / "work").glob("*.log"))
    assert done.stdout.splitlines() == expected, f"{done.stderr}\n{logs}"
