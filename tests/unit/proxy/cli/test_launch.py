"""The sidecar's arguments and the app's environment."""

import random
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.cli.errors import CliError
from proxy.cli.launch import (
    AppSpec,
    Ready,
    app_command,
    app_environment,
    expand,
    free_ports,
    sidecar_command,
    sidecar_environment,
    with_loopback,
)
from proxy.settings.parsing import parse

READY = Ready(http=3501, grpc=50011, peer=47000, metrics=9091, upstreams={"pay": 7777}, admin_socket="/s")


def spec(tmp_path: Path, *flags: str, command: tuple[str, ...] = ("run",), **env: str) -> AppSpec:
    words = ("--app-id=cart", *flags)
    settings = parse(words, {"POSTERN_HOME": str(tmp_path / "root")}, profile_hint="dev")
    return AppSpec(app_id="cart", command=command, folder=tmp_path, flags=words, settings=settings, env=env)


def test_app_gets_the_ports_that_the_sidecar_took(tmp_path: Path) -> None:
    env = app_environment(spec(tmp_path, "--app-port=8080", "--app-protocol=grpc"), READY, {"HOME": "/h"})
    assert env["HOME"] == "/h"
    assert env["APP_ID"] == "cart"
    assert env["APP_PORT"] == "8080"
    assert env["APP_PROTOCOL"] == "grpc"
    assert env["APP_CHANNEL_ADDRESS"] == "127.0.0.1"
    assert env["DAPR_HTTP_PORT"] == "3501"
    assert env["DAPR_GRPC_PORT"] == "50011"
    assert env["DAPR_METRICS_PORT"] == "9091"
    assert "http_proxy" not in env


def test_app_finds_its_port_in_port_as_well_unless_something_else_sets_it(tmp_path: Path) -> None:
    given = spec(tmp_path, "--app-port=8080")
    assert app_environment(given, READY, {})["PORT"] == "8080"
    assert app_environment(given, READY, {"PORT": "9"})["PORT"] == "9"
    assert app_environment(spec(tmp_path, "--app-port=8080", PORT="7"), READY, {})["PORT"] == "7"
    assert app_environment(replace(given, chosen_port=True), READY, {"PORT": "9"})["PORT"] == "8080"
    assert "PORT" not in app_environment(spec(tmp_path), READY, {})


def test_app_without_a_port_is_told_none(tmp_path: Path) -> None:
    assert "APP_PORT" not in app_environment(spec(tmp_path), READY, {})


def test_app_finds_each_upstream_by_its_name(tmp_path: Path) -> None:
    env = app_environment(
        spec(tmp_path, "--upstream=pay", "--upstream=stock-2.shop=7002"), READY, {"PAY_ADDR": "elsewhere:1"}
    )
    assert env["PAY_ADDR"] == "localhost:7777"
    assert env["STOCK_2_SHOP_ADDR"] == "localhost:7002"


def test_app_keeps_its_own_python_settings_and_prints_at_once(tmp_path: Path) -> None:
    env = app_environment(spec(tmp_path), READY, {"PYTHONPATH": "/mine"})
    assert env["PYTHONPATH"] == "/mine"
    assert env["PYTHONUNBUFFERED"] == "1"
    assert app_environment(spec(tmp_path), READY, {"PYTHONUNBUFFERED": ""})["PYTHONUNBUFFERED"] == ""


def test_run_file_values_win_over_the_callers_but_not_over_the_sidecars_ports(tmp_path: Path) -> None:
    asked = spec(tmp_path, HOME="/other", DAPR_HTTP_PORT="1", URL="http://localhost:${DAPR_HTTP_PORT}/x")
    env = app_environment(asked, READY, {"HOME": "/h"})
    assert env["HOME"] == "/other"
    assert env["DAPR_HTTP_PORT"] == "3501"
    assert env["URL"] == "http://localhost:3501/x"


def test_loopback_is_never_proxied(tmp_path: Path) -> None:
    assert app_environment(spec(tmp_path), READY, {})["no_proxy"] == "localhost,127.0.0.1,::1"
    env = app_environment(spec(tmp_path), READY, {"NO_PROXY": "corp, localhost"})
    assert env["NO_PROXY"] == "corp,localhost,127.0.0.1,::1"
    assert env["no_proxy"] == env["NO_PROXY"]
    assert with_loopback("") == "localhost,127.0.0.1,::1"


def test_sidecar_gets_no_python_settings_but_what_both_must_agree_on(tmp_path: Path) -> None:
    env = sidecar_environment(
        spec(tmp_path, DAPR_API_TOKEN="t", URL="x"),
        {"PYTHONPATH": "/mine", "HOME": "/h", "DAPR_API_TOKEN": "old"},
    )
    assert env == {"HOME": "/h", "DAPR_API_TOKEN": "t"}


def test_sidecar_is_started_isolated_with_the_words_that_only_we_know(tmp_path: Path) -> None:
    words = sidecar_command(spec(tmp_path, command=("python", "a b.py")), ready_fd=7, cli_pid=12)
    assert words[1:4] == ["-I", "-m", "proxy"]
    assert "--app-id=cart" in words
    assert "--run-command=python a b.py" in words
    assert "--ready-fd=7" in words
    assert "--cli-pid=12" in words


def test_command_is_expanded_with_the_apps_own_ports(tmp_path: Path) -> None:
    asked = spec(
        tmp_path, "--app-port=8080", command=("serve", "--port=${APP_PORT}", "${DAPR_GRPC_PORT}", "${HOME}")
    )
    assert app_command(asked, READY) == ["serve", "--port=8080", "50011", "${HOME}"]


def test_expand_leaves_foreign_variables_and_empties_missing_ones() -> None:
    assert expand("${APP_PORT}|$APP_PORT|${OTHER}", {}) == "|$APP_PORT|${OTHER}"


def test_free_ports_are_distinct_unused_and_not_those_taken() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", free_ports(1, random.Random(1))[0]))
        held.listen()
        used = held.getsockname()[1]
        found = free_ports(5, random.Random(1), taken=[used + 1])
    assert len(set(found)) == 5
    assert used not in found
    assert used + 1 not in found


def test_free_ports_beyond_what_there_is_fail() -> None:
    with pytest.raises(CliError, match="no 20000 free ports"):
        free_ports(20_000, random.Random(1), taken=range(65_536))
