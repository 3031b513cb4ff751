"""The quickstart's two apps, the one asking the other directly."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"


@pytest.fixture
def hello() -> Iterator[str]:
    """The address of a running hello app."""
    process = subprocess.Popen(
        [sys.executable, "hello.py"],
        cwd=QUICKSTART,
        env={"APP_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("path", "printed", "code"),
    [
        ("/greet/Ada", "200 Hello, Ada!", 0),
        ("/greet/Zo%C3%AB", "200 Hello, Zoë!", 0),
        ("/key", "200 The key is under the mat.", 0),
        ("/nowhere", "404 Try /greet/Ada.", 1),
    ],
)
def test_caller_prints_what_hello_answers(hello: str, path: str, printed: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "caller.py", path],
        cwd=QUICKSTART,
        env={"HELLO_ADDR": hello, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == printed
    assert done.returncode == code
