"""The shop's first page in a real browser, wide and narrow."""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-proxy-server",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def browse(tmp_path: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout


def test_page_is_built_in_the_browser(shop: Mapping[str, str], tmp_path: Path) -> None:
    document = browse(tmp_path, "--dump-dom", f"http://{shop['frontend']}/product/lamp")
    assert "Brass table lamp</h1>" in document
    assert document.count("<svg") >= 6


@pytest.mark.parametrize("size", [(1280, 900), (500, 900)])
def test_page_is_drawn(shop: Mapping[str, str], tmp_path: Path, size: tuple[int, int]) -> None:
    picture = tmp_path / "page.png"
    width, height = size
    browse(
        tmp_path, f"--window-size={width},{height}", f"--screenshot={picture}", f"http://{shop['frontend']}/"
    )
    content = picture.read_bytes()
    assert struct.unpack(">II", content[16:24]) == size
    assert len(content) > 20_000, "a page of drawings takes more than a blank one"
