"""One real Zipkin for all tests here that ask for it."""

from collections.abc import Iterator

import pytest

from tests.support import zipkin as zipkin_server


@pytest.fixture(scope="session")
def zipkin() -> Iterator[zipkin_server.ZipkinServer]:
    """A running Zipkin; tests are skipped, saying why, where there is no Java or Maven."""
    missing = zipkin_server.reason_missing()
    if missing is not None:
        pytest.skip(f"Zipkin: {missing}")
    with zipkin_server.launch() as server:
        yield server
