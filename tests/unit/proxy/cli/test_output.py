"""Lines of many processes on one console, and in files."""

import io
import json
import os
from pathlib import Path

import pytest

from proxy.cli.output import MAX_LINE_BYTES, Console, LineSplitter, LogFile, colour_of, plain, wants_colour


class Terminal(io.BytesIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Gone(io.BytesIO):
    """A stream whose reader went away."""

    def write(self, data: object) -> int:
        raise BrokenPipeError


def console(
    out: io.BytesIO, err: io.BytesIO, *, width: int = 4, as_json: bool = False, **env: str
) -> Console:
    return Console(out, err, env, width=width, as_json=as_json)


def test_lines_are_split_across_chunks() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntw") == [b"one"]
    assert splitter.feed(b"o\r\n\nthree") == [b"two", b""]
    assert splitter.close() == [b"three"]
    assert splitter.close() == []


def test_line_without_end_is_broken_at_the_limit() -> None:
    splitter = LineSplitter()
    assert [len(line) for line in splitter.feed(b"x" * (2 * MAX_LINE_BYTES + 1))] == [MAX_LINE_BYTES] * 2
    assert splitter.close() == [b"x"]


def test_console_prefixes_lines_and_parts_apps_from_sidecars() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    written = console(out, err, width=8)
    written.line("cart", "app", b"hello")
    written.line("checkout", "app-error", b"oops")
    written.line("cart", "sidecar", b"up")
    assert out.getvalue() == b"cart     | hello\n"
    assert err.getvalue() == b"checkout | oops\ncart     | up\n"


def test_console_that_is_no_terminal_gets_no_escapes() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    console(out, err).line("cart", "app", b"\x1b[31mred\x1b[0m")
    assert out.getvalue() == b"cart | red\n"


def test_console_on_a_terminal_colours_the_prefix_and_dims_the_sidecar() -> None:
    out, err = Terminal(), Terminal()
    written = console(out, err)
    written.line("cart", "app", b"\x1b[31mred")
    written.line("cart", "sidecar", b"up")
    colour = colour_of("cart").encode()
    assert out.getvalue() == b"\x1b[" + colour + b"mcart | \x1b[0m\x1b[31mred\x1b[0m\n"
    assert err.getvalue() == b"\x1b[" + colour + b"mcart | \x1b[0m\x1b[2mup\x1b[0m\n"


LOG_LINE = b'time="2026-01-02T03:04:05Z" level=warning msg="access denied" app_id=cart verb=GET ver=1'


def test_sidecars_log_lines_are_short_on_a_terminal_and_whole_in_a_pipe() -> None:
    pipe, terminal = io.BytesIO(), Terminal()
    console(io.BytesIO(), pipe).line("cart", "sidecar", LOG_LINE)
    console(io.BytesIO(), terminal, NO_COLOR="1").line("cart", "sidecar", LOG_LINE)
    assert pipe.getvalue() == b"cart | " + LOG_LINE + b"\n"
    assert terminal.getvalue() == b"cart | warning: access denied  verb=GET\n"


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_is_left_out_where_the_user_says_so(env: dict[str, str]) -> None:
    assert not wants_colour(Terminal(), env)
    assert wants_colour(Terminal(), {"NO_COLOR": ""})
    assert not wants_colour(io.BytesIO(), {})


def test_colour_of_an_app_is_the_same_in_every_run() -> None:
    assert colour_of("cart") == colour_of("cart")
    assert len({colour_of(f"app-{i}") for i in range(50)}) > 5


def test_console_as_json_writes_one_object_a_line_and_passes_a_sidecars_own() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    written = console(out, err, as_json=True)
    written.line("cart", "app", b'say "hi"')
    written.line("cart", "sidecar", b'{"msg":"up"}')
    written.say("ok", "done")
    assert json.loads(out.getvalue()) == {"app_id": "cart", "source": "app", "msg": 'say "hi"'}
    assert [json.loads(line) for line in err.getvalue().splitlines()] == [
        {"msg": "up"},
        {"status": "success", "msg": "done"},
    ]


def test_console_whose_reader_is_gone_notes_it_and_goes_on() -> None:
    written = console(Gone(), io.BytesIO())
    written.line("cart", "app", b"hello")
    written.line("cart", "app", b"again")
    assert written.broken


def test_plain_removes_colours_titles_and_cursor_moves() -> None:
    assert plain(b"\x1b[1;31mx\x1b[0m\x1b]0;title\x07y\x1b[2Kz\x1bM") == b"xyz"


def test_log_file_is_private_plain_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.log"
    for text in (b"\x1b[31mone\x1b[0m", b"two"):
        log = LogFile(path)
        log.line(text)
        log.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_log_file_is_rotated_at_its_limit_and_keeps_five_old_ones(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", limit=10)
    for number in range(20):
        log.line(b"line %03d" % number)
    log.close()
    assert (tmp_path / "a.log").read_bytes() == b"line 019\n"
    assert (tmp_path / "a.log.1").read_bytes() == b"line 018\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", *(f"a.log.{n}" for n in range(1, 6))]


def test_log_file_on_a_full_disk_loses_lines_and_says_so_once(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "app.log")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file.fileno())
    os.close(full)
    assert [log.line(b"one"), log.line(b"two")] == [False, True]
    assert "No space left" in log.problem
    log.close()
