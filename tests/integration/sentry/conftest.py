"""A short, private runtime root for each test: sockets need short paths."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.sentry.process import Running, end_local, running_sentry


@pytest.fixture
def root() -> Iterator[Path]:
    """A runtime root; a local sentry left in it is ended."""
    path = Path(tempfile.mkdtemp(prefix="sentry-"))
    yield path
    end_local(path)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def sentry() -> Iterator[Running]:
    """One sentry for all tests that leave it as they found it."""
    path = Path(tempfile.mkdtemp(prefix="sentry-"))
    with running_sentry(path) as running:
        yield running
    shutil.rmtree(path)
