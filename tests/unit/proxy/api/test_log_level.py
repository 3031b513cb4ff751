"""The log level of a running sidecar."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

import pytest

from proxy.api.log_level import LogLevel
from telemetry.logs import set_level


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Levels are the process's."""
    names = ("", "postern", "dapr")
    before = {name: logging.getLogger(name).level for name in names}
    set_level("info")
    yield
    for name in names:
        logging.getLogger(name).setLevel(before[name])


def test_level_is_changed_for_good_and_reset() -> None:
    level = LogLevel("info")
    level.change("DEBUG")
    assert logging.getLogger("postern").level == logging.DEBUG
    assert level.told() == {"level": "debug", "configured": "info", "until": None}
    rows = [{"name": "log-level", "value": "info", "source": "default"}, {"name": "x"}]
    assert level.among(rows)[0]["value"] == "debug"
    level.change("reset")
    assert logging.getLogger("postern").level == logging.INFO
    assert level.among(rows) == rows


async def test_level_goes_back_after_its_time() -> None:
    ends: list[tuple[float, Callable[[], None]]] = []

    def later(for_s: float, end: Callable[[], None]) -> asyncio.TimerHandle:
        ends.append((for_s, end))
        return asyncio.get_running_loop().call_later(for_s, end)

    level = LogLevel("warn", later)
    level.change("debug", "10m")
    assert 0 < level.told()["until"] - time.time() <= 600
    ((for_s, end),) = ends
    assert for_s == 600
    end()
    assert level.told() == {"level": "warn", "configured": "warn", "until": None}
    assert logging.getLogger("postern").level == logging.WARNING


@pytest.mark.parametrize(
    ("asked", "length", "said"),
    [
        ("loud", "", "expected one of debug"),
        ("debug", "soon", "for 'soon'"),
        ("debug", "0s", "above 0"),
        ("debug", "25h", "a day at most"),
    ],
)
def test_level_that_is_none_is_told(asked: str, length: str, said: str) -> None:
    level = LogLevel("info")
    with pytest.raises(ValueError, match=said):
        level.change(asked, length)
    assert level.told()["level"] == "info"
