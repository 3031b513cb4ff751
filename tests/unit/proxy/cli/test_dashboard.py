"""How the link gets to a browser."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINK = "http://127.0.0.1:1/#token=s3cret"
OPEN = f"import sys; from pathlib import Path; from proxy.cli.dashboard import _open; _open({LINK!r}, Path(sys.argv[1]))"


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell is here to stand for a browser")
def test_browser_is_given_a_private_file_and_never_the_token(tmp_path: Path) -> None:
    page, said = tmp_path / "page.html", tmp_path / "said"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {said}\n')
    browser.chmod(0o700)
    subprocess.run(
        [sys.executable, "-c", OPEN, str(page)], env={"BROWSER": str(browser)}, check=True, timeout=30
    )
    assert said.read_text().strip() == page.as_uri()
    assert page.stat().st_mode & 0o777 == 0o600
    assert LINK in page.read_text()
