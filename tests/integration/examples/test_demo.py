"""The demonstration as a person starts it: the shop in the mesh, through public commands alone."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from examples.boutique.shopper import Shopper

ROOT = Path(__file__).parents[3]
START = (sys.executable, "-m", "examples.boutique.demo", "--no-zipkin", "--folder")

pytestmark = pytest.mark.timeout(300)  # eighteen processes start on whatever machine this is


@contextmanager
def running_demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*START, folder], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    pytest.fail(f"ended without {text!r}:\n{seen}")


def test_demo_once_checks_the_checkout_and_exits_0(tmp_path: Path) -> None:
    done = subprocess.run(
        [*START, tmp_path / "demo", "--once"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    log = tmp_path / "demo" / "mesh.log"
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log.read_text() if log.exists() else ''}"
    assert "✗" not in done.stdout
    for title in ("checkout called payment, under its own call", "the front end may not charge a card"):
        assert f"✓ {title}" in done.stdout


def test_demo_stays_open_to_shoppers_until_ctrl_c_and_leaves_nothing_running(tmp_path: Path) -> None:
    with running_demo(tmp_path / "demo") as process:
        told = read_until(process, "Ctrl-C stops everything")
        page = told.split("http://", 1)[1].split("/", 1)[0]
        assert Shopper(page).buy("vase").trace_id
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 18
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert [
            child for child in started if child.is_running() and "sentry" not in " ".join(cmdline(child))
        ] == []


def cmdline(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.NoSuchProcess:
        return []
    return found


def test_demo_that_cannot_start_says_why_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mesh.log").mkdir()
    done = subprocess.run(
        [*START, tmp_path / "demo", "--once"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
