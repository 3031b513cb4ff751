"""One shop for all tests of a module: it takes seconds to start, and shoppers do not see each other."""

from collections.abc import Iterator, Mapping

import pytest

from examples.boutique.shopper import Shopper
from tests.integration.examples.shop import run_shop


@pytest.fixture(scope="package")
def shop() -> Iterator[Mapping[str, str]]:
    """Addresses of the running services by name."""
    with run_shop() as addresses:
        yield addresses


@pytest.fixture
def shopper(shop: Mapping[str, str]) -> Shopper:
    """Somebody new at the front door."""
    return Shopper(shop["frontend"])
