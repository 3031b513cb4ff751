"""Lines of the access log."""

import json

import pytest

from telemetry.call_lines import is_wanted, pieces, render
from telemetry.line_form import KEYS, LineFilter, parse_form
from telemetry.report import Call
from tests.unit.telemetry.building import TRACE, a_call, a_grpc_call, an_attempt


def no_header(name: bytes) -> None:
    return None


def test_line_is_one_json_object_with_the_calls_facts() -> None:
    call = a_call(
        bytes_in=1,
        bytes_out=2,
        attempts=(an_attempt(), an_attempt()),
        policies=(("r", "", "retry", "app_x"),),
    )
    line = render(parse_form("json"), call, {"resolve": 7, "queue": 8}, no_header)
    found = json.loads(line)
    assert (line.count(b"\n"), list(found)) == (1, list(KEYS))
    assert (found["direction"], found["src"], found["dst"], found["path"]) == (
        "outbound",
        "cart",
        "checkout",
        "/orders/1",
    )
    assert (found["resolve_us"], found["queue_us"], found["connect_us"]) == (7, 8, None)
    assert (found["duration_us"], found["ttfb_us"], found["attempts"]) == (2000, 1500, 2)
    assert (found["trace_id"], found["policies"]) == (f"{TRACE:032x}", ["r/retry"])
    assert found["time"] == "2023-11-14T22:13:20.002000000Z"


def test_template_writes_values_bare_and_what_there_is_not_as_a_dash() -> None:
    form = parse_form("{verb} {path} {grpc_code} {policies} {sampled} {header:user-agent} {header:x}")
    line = render(form, a_call(path="/a\x1b b"), {}, {b"user-agent": b"curl/8\r\n"}.get)
    assert line == b"GET /a\\u001b b - - true curl/8\\u000d\\u000a -\n"


def test_paths_are_hidden_where_urls_are() -> None:
    assert json.loads(render(parse_form("path,status"), a_call(), {}, no_header, hides_paths=True)) == {
        "path": "",
        "status": 200,
    }


@pytest.mark.parametrize(
    ("chosen", "call", "has_line"),
    [
        (LineFilter(min_status=400), a_call(status=200), False),
        (LineFilter(min_status=400), a_call(status=400), True),
        (LineFilter(min_status=400), a_grpc_call(status=200, grpc_code=14), True),
        (LineFilter(min_status=400), a_call(status=0, cause="caller-left"), True),
        (LineFilter(slower_ns=2_000_001), a_call(), False),
        (LineFilter(slower_ns=2_000_000), a_call(), True),
        (LineFilter(every=TRACE), a_call(), True),
        (LineFilter(every=TRACE - 1), a_call(), False),
        (LineFilter(every=TRACE - 1, slower_ns=10**12), a_call(status=403, cause="denied"), True),
        (LineFilter(every=TRACE - 1), a_call(status=403, said="denied"), True),
    ],
)
def test_filter_leaves_out_what_it_names_but_no_denial(
    chosen: LineFilter, call: Call, has_line: bool
) -> None:
    assert is_wanted(chosen, call) is has_line


def test_pieces_hold_what_a_decision_knows_as_text() -> None:
    known = {"src": 'a"b', "dst": "cart", "policies": ["r/retry"]}
    made = pieces(
        parse_form("src,path,policies,protocol,status", ("x",)), known, is_by_path=True, is_grpc=True
    )
    assert made == [
        ("text", b'{"src":"a\\"b","path":'),
        ("method-path", b""),
        ("text", b',"policies":["r/retry"],"protocol":"grpc","status":'),
        ("status", b""),
        ("text", b',"x":'),
        ("header", b"x"),
        ("text", b"}"),
    ]
