"""The quickstart's commands as its README gives them, with a port of the test's own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port

QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
BIN = Path(sys.executable).parent


@pytest.fixture
def env() -> Iterator[Mapping[str, str]]:
    """An environment with a runtime root of its own, short enough for unix sockets."""
    home = tempfile.mkdtemp(prefix="qs-")
    yield {**os.environ, "POSTERN_HOME": home, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running_hello(env: Mapping[str, str], *flags: str) -> Iterator[None]:
    command: list[str | Path] = [
        BIN / "postern",
        "run",
        "--app-id",
        "hello",
        "--app-port",
        str(free_port()),
        *flags,
    ]
    process = subprocess.Popen(
        [*command, "--", "python", "hello.py"],
        cwd=QUICKSTART,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any("the app is listening" in line for line in process.stdout)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def call(env: Mapping[str, str], app_id: str, path: str) -> tuple[str, int]:
    """What the caller app prints, and the exit code of the command that ran it."""
    done = subprocess.run(
        [
            BIN / "postern",
            "run",
            "--app-id",
            app_id,
            "--upstream",
            "hello",
            "--",
            "python",
            "caller.py",
            path,
        ],
        cwd=QUICKSTART,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = re.search(r"^(?:\S+ +\| )?([1-5][0-9]{2} .*)$", done.stdout, re.MULTILINE)
    return (found[1] if found else f"{done.stdout}\n{done.stderr}"), done.returncode


def test_caller_is_greeted_through_the_mesh_and_the_list_shows_who_runs(env: Mapping[str, str]) -> None:
    with running_hello(env):
        assert call(env, "caller", "/greet/Ada") == ("200 Hello, Ada!", 0)
        listed = subprocess.run(
            [BIN / "postern", "list"], env=env, capture_output=True, text=True, timeout=60, check=True
        )
    assert "hello" in listed.stdout


def test_policy_lets_the_caller_greet_and_nobody_do_more(env: Mapping[str, str]) -> None:
    with running_hello(env, "--config", "policy.yaml"):
        assert call(env, "caller", "/greet/Ada") == ("200 Hello, Ada!", 0)
        for app_id, path in (("caller", "/key"), ("stranger", "/greet/Ada")):
            printed, code = call(env, app_id, path)
            assert printed.startswith("403 ")
            assert code == 1
