"""A short, private runtime root for each test: sockets need short paths."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.sentry.process import end_local


@pytest.fixture
def root() -> Iterator[Path]:
    """A runtime root; a local sentry left in it is ended."""
    path = Path(tempfile.mkdtemp(prefix="sentry-"))
    yield path
    end_local(path)
    shutil.rmtree(path)
