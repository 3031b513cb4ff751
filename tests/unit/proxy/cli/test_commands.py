"""What the commands decide, apart from asking and printing."""

import math
import signal
from contextlib import closing
from pathlib import Path

import pytest

from nameresolution.host_registry import Entry, HostRegistry
from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import SidecarAnswer, of_app
from proxy.cli.guard import note
from proxy.cli.invoke import address_of, choose_callers, exit_code, parse_headers, trace_of
from proxy.cli.listing import endpoint_rows, extended, listed, merged, notes, service_rows, why_nothing
from proxy.cli.stop import of_instance
from proxy.cli.supervisor import exit_code as run_code
from proxy.cli.tables import format_age
from proxy.cli.unit import Ended, Why, parse_ready
from proxy.cli.wait import read as read_wait
from proxy.wire.http_client import LocalResponse


def entry(app_id: str = "cart", **facts: object) -> Entry:
    return Entry(app_id=app_id, instance=f"{app_id}-1", peer_port=47000, **facts)  # type: ignore[arg-type]


def sidecar(answer: dict[str, object] | None, app_id: str = "cart", **facts: object) -> SidecarAnswer:
    return SidecarAnswer(entry=entry(app_id, **facts), answer=answer)


@pytest.mark.parametrize(
    ("seconds", "age"), [(-1, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (3600, "1h"), (86_400 * 3, "3d")]
)
def test_age_is_one_whole_number_with_a_unit(seconds: float, age: str) -> None:
    assert format_age(seconds) == age


def test_listed_sidecar_has_daprs_keys() -> None:
    told = {"appLogPath": "/l", "appPID": "12", "cliPID": "x"}
    found = sidecar({"shutdown": "serving"}, http_port=3500, pid=7, started_at=100.0, cli_pid=3)
    row = listed(found, 160.0, told)
    keys = (
        "appId httpPort grpcPort appPort metricsEnabled command age created daprdPid cliPid appPid "
        "maxRequestBodySize httpReadBufferSize runTemplatePath appLogPath daprdLogPath runTemplateName"
    )
    assert set(keys.split()) <= row.keys()
    assert (row["appId"], row["httpPort"], row["daprdPid"], row["age"]) == ("cart", 3500, 7, "1m")
    assert (row["appLogPath"], row["appPid"], row["cliPid"]) == ("/l", 12, 3)
    assert row["status"] == "running"


def test_listed_sidecar_that_said_nothing_is_unresponsive() -> None:
    assert listed(sidecar(None), 0.0, {})["status"] == "unresponsive"
    assert listed(sidecar({"shutdown": "draining"}), 0.0, {})["status"] == "draining"


def test_what_was_told_of_a_run_is_read_from_the_metadata() -> None:
    assert extended(sidecar({"extended": {"appPID": "12", "odd": 1}})) == {"appPID": "12"}
    assert extended(sidecar(None)) == {}


def test_notes_tell_what_is_wrong() -> None:
    answer: dict[str, object] = {
        "identity": {"lastError": "sentry refused"},
        "policy": {"lastError": None, "warnings": ["x unused"]},
        "notReady": ["identity", "naming"],
        "app": {"port": 8080, "heldBy": "nginx (pid 7)", "heldByForeign": True},
    }
    assert notes([sidecar(answer)]) == [
        "cart: identity: sentry refused",
        "cart: not ready: identity, naming",
        "cart: port 8080 is held by nginx (pid 7), which is not the app that was started here",
        "cart: policy: x unused",
    ]
    assert "does not answer" in notes([sidecar(None)])[0]


def test_note_that_is_the_same_for_several_apps_is_told_once() -> None:
    one = sidecar({"engineNotice": "slow"})
    other = sidecar({"engineNotice": "slow", "notReady": ["app"]}, "web")
    assert notes([one, other]) == ["cart, web: slow", "web: not ready: app"]


def test_each_fault_of_a_policy_is_a_note_of_its_own() -> None:
    assert notes([sidecar({"policy": {"lastError": "a.yaml:1: x\na.yaml:2: y"}})]) == [
        "cart: policy: a.yaml:1: x",
        "cart: policy: a.yaml:2: y",
    ]


def test_endpoint_rows_are_flat_and_survive_odd_answers() -> None:
    answer: dict[str, object] = {
        "pay.default": {"stale": True, "endpoints": [{"address": "1:1"}, {"address": "2:2"}, "odd"]},
        "stock.default": {"endpoints": []},
        "odd": 7,
    }
    assert endpoint_rows(sidecar(answer)) == [
        {"from": "cart", "app": "pay.default", "address": "1:1", "state": "stale"},
        {"from": "cart", "app": "pay.default", "address": "2:2", "state": "stale"},
    ]
    assert endpoint_rows(sidecar(None)) == []


def test_service_rows_tell_who_said_so_and_survive_odd_answers() -> None:
    row = {"service": "shop.Cart", "app": "cart", "how": "learnt", "by": "cart"}
    answer: dict[str, object] = {"services": [{**row, "inForce": True}, {**row, "by": "web"}, "odd"]}
    assert service_rows(sidecar(answer)) == [
        {**row, "in force": "yes", "from": "cart"},
        {**row, "by": "web", "in force": "no", "from": "cart"},
    ]
    assert service_rows(sidecar({"services": 7})) == service_rows(sidecar(None)) == []


def test_what_was_tried_is_told_and_survives_odd_answers() -> None:
    answer: dict[str, object] = {"pay.default": {"tried": ["host registry: no entry"]}, "odd": 7}
    assert why_nothing([sidecar(answer), sidecar(answer), sidecar(None)]) == "host registry: no entry"
    answer["pay.default"] = {"tried": ["host registry: no entry"], "near": ["pays"]}
    assert why_nothing([sidecar(answer)]) == "did you mean 'pays'? tried: host registry: no entry"


def test_same_endpoint_seen_by_several_is_one_row() -> None:
    rows = [
        {"from": "web", "app": "pay.default", "address": "1:1", "state": "fresh"},
        {"from": "cart", "app": "pay.default", "address": "1:1", "state": "fresh"},
        {"from": "web", "app": "pay.default", "address": "1:1", "state": "fresh"},
        {"from": "cart", "app": "pay.default", "address": "1:1", "state": "stale"},
    ]
    assert merged(rows) == [
        {"app": "pay.default", "address": "1:1", "state": "fresh", "from": "web, cart"},
        {"app": "pay.default", "address": "1:1", "state": "stale", "from": "cart"},
    ]


def test_pids_that_are_not_known_are_null_so_that_no_script_ends_its_own_group() -> None:
    row = listed(sidecar(None), 0.0, {})
    assert (row["appPid"], row["cliPid"], row["daprdPid"]) == (None, None, None)


def test_caller_is_the_one_asked_for_else_the_callee_then_any_other_app(tmp_path: Path) -> None:
    cart, twin, pay = entry("cart"), Entry(app_id="cart", instance="cart-2", peer_port=1), entry("pay")
    assert choose_callers([cart, twin, pay], "cart", None, tmp_path) == (cart, pay)
    assert choose_callers([cart, pay], "pay.default", None, tmp_path) == (pay, cart)
    assert choose_callers([cart, pay], "pay.shop", None, tmp_path) == (cart, pay)
    with pytest.raises(CliError, match=f"no sidecar runs in {tmp_path}; POSTERN_HOME"):
        choose_callers([], "cart", None, tmp_path)
    with closing(HostRegistry(tmp_path).register(pay)):
        assert [one.app_id for one in choose_callers([cart, pay], "cart", "pay", tmp_path)] == ["pay"]
        with pytest.raises(CliError, match="running: pay"):
            choose_callers([cart, pay], "pay", "nobody", tmp_path)


def test_instance_is_named_by_the_beginning_of_its_id_or_its_process() -> None:
    one = Entry(app_id="cart", instance="a1b2", peer_port=1, pid=71)
    two = Entry(app_id="cart", instance="a1c3", peer_port=2, pid=72)
    assert of_instance([one, two], "a1b") is one
    assert of_instance([one, two], "72") is two
    with pytest.raises(CliError, match=r"several instances.*a1b2 \(cart, process 71\)"):
        of_instance([one, two], "a1")
    with pytest.raises(CliError, match="no such instance"):
        of_instance([one], "b")


def test_app_is_found_by_name_and_namespace(tmp_path: Path) -> None:
    with closing(HostRegistry(tmp_path).register(entry("cart", namespace="shop"))):
        assert of_app(tmp_path, "cart")[0].namespace == "shop"
        assert of_app(tmp_path, "cart.shop")
        with pytest.raises(CliError, match=r"cart\.other: no such app"):
            of_app(tmp_path, "cart.other")


def test_caller_on_a_unix_socket_must_be_named(tmp_path: Path) -> None:
    assert address_of(entry(http_port=3500), None) == "127.0.0.1:3500"
    assert address_of(entry(), tmp_path) == f"unix:{tmp_path}/dapr-cart-http.socket"
    with pytest.raises(CliError, match="--unix-domain-socket"):
        address_of(entry(), None)


def test_headers_are_parted_at_the_first_colon() -> None:
    assert parse_headers(["A: b:c", "X:"]) == [("A", "b:c"), ("X", "")]
    for text in ("none", ": x"):
        with pytest.raises(UsageError, match="expected 'Name: value'"):
            parse_headers([text])


@pytest.mark.parametrize(
    ("status", "code"), [(200, 0), (204, 0), (302, 0), (404, 4), (499, 4), (500, 5), (504, 5)]
)
def test_invoke_exits_with_the_class_of_the_status(status: int, code: int) -> None:
    assert exit_code(status) == code


def ended(code: int, why: Why = Why.APP) -> Ended:
    return Ended(why=why, code=code, message="")


@pytest.mark.parametrize(
    ("stopped_by", "results", "keep_going", "code"),
    [
        (None, [ended(0)], False, 0),
        (None, [ended(7)], False, 7),
        (None, [ended(7), ended(0, Why.ASKED)], False, 7),
        (None, [ended(7), ended(0)], True, 3),
        (None, [ended(7), ended(8)], True, 7),
        (None, [ended(1, Why.SIDECAR)], False, 1),
        (None, [ended(0, Why.OUTSIDE)], False, 0),
        (signal.SIGINT, [ended(0, Why.ASKED)], False, 130),
        (signal.SIGTERM, [ended(0, Why.ASKED)], False, 143),
        (signal.SIGTERM, [ended(7)], False, 7),
    ],
)
def test_run_exits_with_the_apps_own_code(
    stopped_by: signal.Signals | None, results: list[Ended], keep_going: bool, code: int
) -> None:
    first = next((result for result in results if result.failed), None)
    assert run_code(stopped_by, results, first, keep_going=keep_going) == code


def test_ready_line_is_read_with_ports_left_out() -> None:
    ready = parse_ready(
        b'{"ports": {"http": 3500, "grpc": null}, "adminSocket": "/s", "upstreams": {"pay": 7001}}\n'
    )
    assert (ready.http, ready.grpc, ready.peer, ready.upstreams["pay"]) == (3500, 0, 0, 7001)
    assert ready.admin_socket == "/s"


@pytest.mark.parametrize(
    "line", [b"", b"hello\n", b"[]\n", b"{}\n", b'{"ports": 1}\n', b'{"ports": {"http": "x"}}\n']
)
def test_ready_line_of_another_form_is_an_error(line: bytes) -> None:
    with pytest.raises(CliError, match="first line is not as expected"):
        parse_ready(line)


def test_notes_name_the_methods_that_a_circuit_breaker_stops() -> None:
    one = {"target": "shop", "policy": "guard", "method": "/a", "state": "open"}
    told: dict[str, object] = {"circuitBreakers": [one, {**one, "method": "/b", "state": "half-open"}]}
    assert notes([sidecar(told)]) == ["cart: circuit breaker guard is open: no calls of /a go to shop"]
    many: dict[str, object] = {"circuitBreakers": [{**one, "method": f"/{number}"} for number in range(100)]}
    assert len(notes([sidecar(many)])) == 5


def test_guard_notes_groups_that_began_and_ended() -> None:
    groups: set[int] = set()
    for line in (b"+12", b"+34", b"-12", b"", b"+", b"+x", b"+1", b"-99", b"?5"):
        note(groups, line)
    assert groups == {34}


def test_wait_reads_an_app_or_a_port() -> None:
    waited = read_wait(["cart", "--timeout", "5", "--runtime-path=/r"])
    assert (waited.app_id, waited.port, waited.timeout_s, waited.root) == ("cart", None, 5.0, "/r")
    waited = read_wait(["--dapr-http-port", "3600", "--timeout=1m"])
    assert (waited.app_id, waited.port, waited.timeout_s) == (None, 3600, 60.0)
    assert math.isclose(read_wait([]).timeout_s, 60.0)


@pytest.mark.parametrize("words", [["a", "b"], ["--nope"], ["--port"], ["--port=x"], ["--timeout=soon"]])
def test_wait_refuses_what_it_does_not_know(words: list[str]) -> None:
    with pytest.raises(UsageError):
        read_wait(words)


@pytest.mark.parametrize(
    ("headers", "body", "trace_id"),
    [
        (((b"traceparent", b"00-" + b"a" * 32 + b"-b7ad6b7169203331-01"),), b"", "a" * 32),
        (((b"postern-error", b"denied"),), b'{"details": [{"requestId": "abc"}]}', "abc"),
        ((), b'{"details": [{"requestId": "abc"}]}', ""),  # an app's own
        (((b"postern-error", b"denied"),), b"plain text", ""),
    ],
)
def test_invoke_finds_the_trace_of_an_answer(
    headers: tuple[tuple[bytes, bytes], ...], body: bytes, trace_id: str
) -> None:
    assert trace_of(LocalResponse(403, headers, body)) == trace_id
