"""Lines: keys, formats, levels, limits."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry import logs
from telemetry.errors import LogConfigError
from tests.unit.telemetry.building import SAMPLED


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Puts the process's logging back as it was."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {log: log.level for log in (root, logging.getLogger("postern"), logging.getLogger("dapr"))}
    yield
    root.handlers[:] = handlers
    for log, level in levels.items():
        log.setLevel(level)


def configured(level: str = "info", *, as_json: bool = False) -> io.StringIO:
    stream = io.StringIO()
    logs.configure("cart", "host-1", level, as_json, version="1.2", stream=stream)
    return stream


def test_text_line_has_the_keys_in_their_order() -> None:
    stream = configured()
    logs.get_logger("dapr.runtime").info("listening on :3500", port=3500)
    line = stream.getvalue()
    assert line.startswith('time="20')
    assert line.partition("Z")[2] == (
        '" level=info msg="listening on :3500" app_id=cart instance=host-1 port=3500 scope=dapr.runtime'
        " type=log ver=1.2\n"
    )


def test_json_line_has_the_same_keys_sorted() -> None:
    stream = configured(as_json=True)
    logs.get_logger("dapr.runtime").warning("odd", n=1)
    found = json.loads(stream.getvalue())
    assert list(found) == sorted(found)
    assert {
        "app_id": "cart",
        "instance": "host-1",
        "level": "warning",
        "msg": "odd",
        "n": 1,
    }.items() <= found.items()
    assert {"scope": "dapr.runtime", "type": "log", "ver": "1.2"}.items() <= found.items()


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", 4), ("info", 3), ("warn", 2), ("warning", 2), ("ERROR", 1), ("fatal", 0)],
)
def test_level_filters_what_is_below_it(level: str, expected: int) -> None:
    stream = configured(level)
    log = logs.get_logger("postern.x")
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert stream.getvalue().count("\n") == expected


def test_loggers_taken_before_configure_follow_it() -> None:
    log = logs.get_logger("early")
    stream = configured()
    log.info("now")
    assert "scope=early" in stream.getvalue()


def test_unknown_level_is_refused() -> None:
    with pytest.raises(LogConfigError, match="got 'loud'"):
        configured("loud")


def test_file_gets_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with logs.configure("cart", "h", file=path):
        logs.get_logger("x").info("kept")
    assert 'msg="kept"' in path.read_text()


def test_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogConfigError, match="No such file"):
        logs.configure("cart", "h", file=tmp_path / "no" / "log")


@pytest.mark.parametrize(
    "hostile", ["a\nb", "a\r\nlevel=fatal", 'say "x"', "\x1b[31m", "\x9b31m", "a\u2028b", "\\"]
)
@pytest.mark.parametrize("as_json", [True, False])
def test_line_no_value_can_end_it_or_reach_the_terminal(hostile: str, as_json: bool) -> None:
    stream = configured(as_json=as_json)
    logs.get_logger("x").info(hostile, value=hostile)
    line = stream.getvalue()
    assert line.splitlines(keepends=True) == [line]
    assert not set(line[:-1]) & {"\n", "\r", "\x1b", "\x9b", "\u2028"}


def test_text_values_are_quoted_only_where_needed() -> None:
    stream = configured()
    logs.get_logger("x").info("m", a="10.0.0.1:80", b="two words", c=True, d="", e=1.5)
    assert ' a=10.0.0.1:80 app_id=cart b="two words" c=true d="" e=1.5 ' in stream.getvalue()


def test_call_fields_tie_a_line_to_its_call() -> None:
    stream = configured()
    logs.get_logger("x").info("m", **logs.call_fields(SAMPLED, "spiffe://public/ns/shop/cart"))
    line = stream.getvalue()
    assert "trace_id=4bf92f3577b34da6a3ce929d0e0e4736" in line
    assert "span_id=00000000000000a1" in line
    assert "sampled=true" in line
    assert "peer=spiffe://public/ns/shop/cart" in line


def test_exception_is_one_line() -> None:
    stream = configured()
    try:
        empty: dict[str, int] = {}
        _ = empty["missing"]
    except KeyError:
        logs.get_logger("x").exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "KeyError" in stream.getvalue()
    assert "level=error" in stream.getvalue()


def test_pythons_own_logging_joins_in() -> None:
    stream = configured()
    logging.getLogger("asyncio").warning("slow %s", "task")
    logging.getLogger("asyncio").debug("quiet")
    assert 'level=warning msg="slow task"' in stream.getvalue()
    assert "scope=asyncio" in stream.getvalue()
    assert "quiet" not in stream.getvalue()


def test_debug_is_for_our_own_scopes_alone() -> None:
    stream = configured("debug")
    logging.getLogger("asyncio").debug("theirs")
    logging.getLogger("postern.identity").debug("ours, %s", "plain")
    assert stream.getvalue().count("\n") == 1
    assert 'level=debug msg="ours, plain"' in stream.getvalue()


def test_fatal_is_what_critical_lines_are_called() -> None:
    stream = configured("fatal")
    logs.get_logger("x").critical("over", message="a field", self="another")
    assert 'level=fatal msg="over"' in stream.getvalue()
    assert ' message="a field" scope=x self=another ' in stream.getvalue()


def test_repeated_line_is_told_with_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", iter([*[1.0] * 13, 2.0]).__next__)
    stream = configured()
    for n in range(14):
        logging.getLogger("asyncio").warning("try %d failed", n)
    assert stream.getvalue().count("\n") == 11
    assert 'msg="try 13 failed"' in stream.getvalue().splitlines()[-1]
    assert "suppressed=3" in stream.getvalue().splitlines()[-1]


def test_line_that_cannot_be_formatted_does_not_reach_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger().handlers.clear()  # pytest's own would raise
    stream = configured()
    logging.getLogger("asyncio").warning("%d", "no number")
    stream.close()
    logs.get_logger("x").info("nobody reads")
    assert "TypeError" in capsys.readouterr().err


def test_configure_twice_leaves_one_handler() -> None:
    configured()
    stream = configured()
    logging.getLogger("asyncio").warning("once")
    assert stream.getvalue().count("once") == 1


class Limited:
    """A limiter on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.limit = logs.RateLimit(10, lambda: self.now)

    def passes(self, template: str, scope: str = "x", level: int = logging.INFO) -> dict[str, object] | None:
        line = logs.Line(scope, level, template, {})
        if not self.limit.filter(line):
            return None
        return {key: vars(line)[key] for key in ("msg", "name", "suppressed") if key in vars(line)}


def test_rate_limit_ten_lines_a_second_of_a_template() -> None:
    limited = Limited()
    assert [limited.passes("again") is not None for _ in range(12)] == [True] * 10 + [False] * 2
    assert limited.passes("other") is not None


def test_rate_limit_next_second_says_how_many_are_missing() -> None:
    limited = Limited()
    for _ in range(15):
        limited.passes("again")
    limited.now = 1.0
    assert limited.passes("again") == {"msg": "again", "name": "x", "suppressed": 5}
    assert limited.passes("again") == {"msg": "again", "name": "x"}


def test_rate_limit_lines_asked_for_by_name_and_fatal_ones_pass() -> None:
    limited = Limited()
    assert all(limited.passes("HTTP API Called", scope="dapr.runtime.http-info") for _ in range(50))
    assert all(limited.passes("end", level=logging.CRITICAL) for _ in range(50))


def test_rate_limit_endless_templates_share_one_allowance() -> None:
    limited = Limited()
    passed = sum(limited.passes(f"line {n}") is not None for n in range(5000))
    assert passed == 1024 + 10


def test_keys_of_a_line_are_documented() -> None:
    stream = configured(as_json=True)
    for _ in range(11):
        logs.get_logger("postern").error("failed", **logs.call_fields(SAMPLED, "spiffe://x"))
    assert set(json.loads(stream.getvalue().splitlines()[0])) <= set(logs.KEYS)
