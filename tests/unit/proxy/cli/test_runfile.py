"""Run files: keys, defaults, paths, own keys, and every fault with its line."""

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.cli.errors import CliError
from proxy.cli.launch import AppSpec
from proxy.cli.runfile import find, find_cycle, read_run_file

Read = Callable[..., tuple[AppSpec, ...]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a run file beside folders `a` and `b`, and read it."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def reading(text: str, *flags: str) -> tuple[AppSpec, ...]:
        (tmp_path / "dapr.yaml").write_text(text)
        env = {"POSTERN_HOME": str(tmp_path / "root")}
        return read_run_file(str(tmp_path), flags=flags, env=env, chance=random.Random(1))

    return reading


def fault(read: Read, text: str, *flags: str) -> str:
    with pytest.raises(CliError) as caught:
        read(text, *flags)
    assert caught.value.code == 2
    return str(caught.value)


TWO = """
version: 1
apps:
  - appDirPath: ./a
    command: [python, app.py]
  - appID: second
    appDirPath: b
    appPort: 8081
    command: ["run"]
"""


def test_run_file_gives_one_spec_an_app(read: Read, tmp_path: Path) -> None:
    first, second = read(TWO)
    assert (first.app_id, first.folder, first.command) == ("a", tmp_path / "a", ("python", "app.py"))
    assert (second.app_id, second.settings.app_port) == ("second", 8081)
    assert first.settings.profile == "dev"
    assert first.settings.run.run_template == str(tmp_path / "dapr.yaml")


def test_keys_of_daprs_documentation_that_nobody_knows_are_told_with_those_that_work(read: Read) -> None:
    with pytest.raises(CliError) as caught:
        read(TWO + "common: {daprHTTPMaxRequestSize: 8, daprHTTPReadBufferSize: 64}\n")
    assert (
        "common.daprHTTPMaxRequestSize: unknown key, to Dapr's command as well (expected maxBodySize"
        in str(caught.value)
    )
    assert (
        "common.daprHTTPReadBufferSize: unknown key, to Dapr's command as well (expected readBufferSize"
        in str(caught.value)
    )


def test_common_values_hold_unless_the_app_has_its_own(read: Read) -> None:
    first, second = read("""
version: 1
common:
  appProtocol: grpc
  logLevel: debug
  enableApiLogging: true
  env: {A: common, B: common, NUM: 5, FLAG: true}
apps:
  - {appDirPath: a, command: [x]}
  - appDirPath: b
    command: [x]
    appProtocol: http
    enableApiLogging: false
    env: {B: own}
""")
    assert (first.settings.app_protocol, second.settings.app_protocol) == ("grpc", "http")
    assert (first.settings.api_logging, second.settings.api_logging) == (True, False)
    assert second.settings.log_level == "debug"
    assert dict(first.env) == {"A": "common", "B": "common", "NUM": "5", "FLAG": "true"}
    assert dict(second.env) == {"A": "common", "B": "own", "NUM": "5", "FLAG": "true"}


def test_every_key_that_a_sidecar_takes_is_passed_on(read: Read) -> None:
    (spec,) = read("""
version: 1
name: shop
apps:
  - appDirPath: a
    command: [x, 1]
    appPort: 8080
    appChannelAddress: 127.0.0.2
    daprHTTPPort: 3600
    daprGRPCPort: 50010
    daprInternalGRPCPort: 47001
    metricsPort: 9100
    profilePort: 7777
    apiListenAddresses: 127.0.0.1
    enableProfiling: true
    appMaxConcurrency: 3
    placementHostAddress: ""
    schedulerHostAddress: localhost
    appSSL: false
    maxBodySize: 8Mi
    readBufferSize: 8Ki
    enableAppHealthCheck: true
    appHealthCheckPath: /up
    appHealthProbeInterval: 2
    appHealthProbeTimeout: 100
    appHealthThreshold: 4
    grpcServices: [shop.Cart]
    routes: {shop.Pay: pay}
    upstreams: {pay: 7001, stock: 0}
""")
    settings = spec.settings
    assert settings.http_port.number == 3600
    assert settings.grpc_port.number == 50010
    assert settings.peer_port.number == 47001
    assert settings.metrics_port is not None
    assert settings.metrics_port.number == 9100
    assert settings.app_channel_address == "127.0.0.2"
    assert settings.app_max_concurrency == 3
    assert settings.max_body_bytes == 8 * 1024 * 1024
    assert settings.read_buffer_bytes == 8192
    assert settings.app_health is not None
    assert settings.app_health.path == "/up"
    assert settings.grpc_services == ("shop.Cart",)
    assert settings.routes == ("shop.Pay=pay",)
    assert [(own.app, own.port) for own in settings.upstreams] == [("pay", 7001), ("stock", 0)]
    assert settings.run.run_template_name == "shop"
    assert len(settings.warnings) == 3
    assert spec.command == ("x", "1")


def test_upstreams_and_routes_can_be_lists_and_merge_with_common_ones(read: Read) -> None:
    (spec,) = read("""
version: 1
common: {upstreams: {pay: 7001, stock: 7002}, routes: ["shop.{Name}Service={name}"]}
apps:
  - {appDirPath: a, command: [x], upstreams: [pay=7009, mail], routes: [x.Y=z]}
""")
    assert [(own.app, own.port) for own in spec.settings.upstreams] == [
        ("pay", 7009),
        ("stock", 7002),
        ("mail", 0),
    ]
    assert spec.settings.routes == ("shop.{Name}Service={name}", "x.Y=z")


def test_app_port_zero_is_a_free_port_of_its_own(read: Read) -> None:
    first, second = read("""
version: 1
apps:
  - {appDirPath: a, command: [x], appPort: 0}
  - {appDirPath: b, command: [x], appPort: 0}
""")
    assert first.chosen_port
    assert first.settings.app_port
    assert second.settings.app_port
    assert first.settings.app_port != second.settings.app_port


def test_users_own_configuration_and_components_come_last(
    read: Read, tmp_path: Path, at_home: dict[str, str]
) -> None:
    (tmp_path / "common.yaml").write_text("")
    (tmp_path / "a" / ".dapr" / "resources").mkdir(parents=True)
    home = tmp_path / "home" / ".dapr"
    (tmp_path / "dapr.yaml").write_text("""
version: 1
apps:
  - {appDirPath: a, command: [x]}
  - {appDirPath: b, command: [x], configFilePath: ../common.yaml}
""")
    first, second = read_run_file(str(tmp_path), flags=(), env=at_home, chance=random.Random(1))
    assert first.settings.config_paths == (home / "config.yaml",)
    assert first.settings.resources_paths == (tmp_path / "a" / ".dapr" / "resources",)
    assert first.found == (home / "config.yaml", tmp_path / "a" / ".dapr" / "resources")
    assert second.settings.config_paths == (tmp_path / "common.yaml",)
    assert second.settings.resources_paths == (home / "components",)
    assert second.found == (home / "components",)


def test_configuration_and_resources_are_found_as_dapr_finds_them(read: Read, tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("")
    (tmp_path / "res").mkdir()
    (tmp_path / "a" / ".dapr" / "resources").mkdir(parents=True)
    (tmp_path / "a" / ".dapr" / "config.yaml").write_text("")
    (tmp_path / "b" / "own.yaml").write_text("")
    (tmp_path / "b" / "r1").mkdir()
    first, second, third = read("""
version: 1
common: {configFilePath: common.yaml, resourcesPaths: [./res]}
apps:
  - {appDirPath: a, command: [x]}
  - {appDirPath: b, command: [x], configFilePath: own.yaml, resourcesPaths: [r1]}
  - {appDirPath: b, appID: c, command: [x]}
""")
    assert first.settings.config_paths == (tmp_path / "a" / ".dapr" / "config.yaml",)
    assert first.settings.resources_paths == (tmp_path / "a" / ".dapr" / "resources",)
    assert second.settings.config_paths == (tmp_path / "b" / "own.yaml",)
    assert second.settings.resources_paths == (tmp_path / "b" / "r1",)
    assert third.settings.config_paths == (tmp_path / "common.yaml",)
    assert third.settings.resources_paths == (tmp_path / "res",)


@pytest.mark.parametrize(
    ("value", "console", "file"),
    [("console", True, False), ("file", False, True), ("fileAndConsole", True, True)],
)
def test_log_destinations(read: Read, tmp_path: Path, value: str, console: bool, file: bool) -> None:
    (spec,) = read(f"""
version: 1
apps: [{{appDirPath: a, command: [x], appLogDestination: {value}, daprdLogDestination: {value}}}]
""")
    assert (spec.app_on_console, spec.sidecar_on_console) == (console, console)
    assert (spec.app_log is not None, spec.sidecar_log is not None) == (file, file)
    if spec.app_log is not None and spec.sidecar_log is not None:
        assert spec.app_log.parent == tmp_path / "a" / ".dapr" / "logs"
        assert spec.app_log.name.startswith("a_app_")
        assert spec.sidecar_log.name.startswith("a_daprd_")


def test_flags_of_the_command_line_reach_every_sidecar(read: Read, tmp_path: Path) -> None:
    for spec in read(TWO, f"--runtime-path={tmp_path / 'other'}", "--log-as-json"):
        assert spec.settings.runtime_root == tmp_path / "other"
        assert spec.settings.log_json


SAME_PORT = """version: 1
apps:
- {appDirPath: a, appID: x, appPort: 8080, command: [x]}
- appDirPath: a
  appID: web
  command: [x]
  # the place is the key's own
  appPort: 8080
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\napps:\n  - appDirPath: a\n    comand: [x]\n    command: [x]\n", (":4", "comand", "did you mean command?")),
        ("version: 1\napps: []\n", (":2", "apps: is too short (expected one entry at least)")),
        ("version: 0\napps: [{appDirPath: a, command: [x]}]\n", (":1", "version")),
        ("apps: [{appDirPath: a, command: [x]}]\n", ("version", "missing")),
        ("version: 1\napps: [{command: [x]}]\n", ("appDirPath", "missing")),
        ("version: 1\napps: [{appDirPath: a, command: []}]\n", ("command",)),
        ("version: 1\napps: [{appDirPath: nope, command: [x]}]\n", ("appDirPath", "does not exist")),
        ("version: 1\napps: [{appDirPath: a, command: [x], appPort: 70000}]\n", ("appPort: 70000 is out of range", "at most 65535")),
        ("version: 1\napps: [{appDirPath: a, command: [x], appPort: -1}]\n", ("appPort: -1 is out of range (expected at least 0)",)),
        (SAME_PORT, (":8", "apps[1].appPort: 8080 is also appPort of x")),
        ("version: 1\napps: [{appDirPath: a, command: [x], appPort: '80'}]\n", ("appPort",)),
        ("version: 1\napps: [{appDirPath: a, command: [x], appLogDestination: disk}]\n", ("appLogDestination", "console")),
        ("version: 1\napps: [{appDirPath: a, command: [x], appProtocol: ftp}]\n", ("--app-protocol", "ftp")),
        ("version: 1\napps: [{appDirPath: a, appID: x.y, command: [x]}]\n", ("--app-id",)),
        ("version: 1\napps: [{appDirPath: a, command: [x], configFilePath: c.yaml}]\n", ("configFilePath", "does not exist")),
        ("version: 1\napps:\n- {appDirPath: a, command: [x]}\n- {appDirPath: a, command: [x]}\n", ("a is given twice",)),
        ("version: 1\napps: [{appDirPath: a, command: [x], dependsOn: [b]}]\n", ("dependsOn", "unknown app 'b'")),
        ("version: 1\napps: [{appDirPath: a, command: [x], dependsOn: [a]}]\n", ("dependsOn", "unknown app 'a'")),
        ("- 1\n", ("mapping",)),
        ("", ("0 documents",)),
        ("version: 1\n---\nversion: 1\n", ("2 documents",)),
        ("version: [\n", ("not valid YAML",)),
    ],
)  # fmt: skip
def test_fault_in_a_run_file_is_told_with_its_place(read: Read, text: str, words: tuple[str, ...]) -> None:
    said = fault(read, text)
    assert "dapr.yaml" in said
    assert all(word in said for word in words)


def test_faults_are_told_all_at_once(read: Read) -> None:
    said = fault(
        read,
        "version: 1\napps:\n- {appDirPath: n1, command: [x]}\n- {appDirPath: n2, command: [x], appProtocol: ftp}\n",
    )
    assert "n1" in said
    assert "n2" in said
    assert "ftp" in said


@pytest.mark.parametrize("key", ["configFilePath", "resourcesPath", "unixDomainSocket"])
def test_path_that_is_not_there_is_one_fault(read: Read, key: str) -> None:
    said = fault(read, f"version: 1\napps:\n- {{appDirPath: a, command: [x], {key}: absent}}\n")
    assert said.count("absent") == 1, said


def test_unknown_keys_are_dropped_when_asked_to_be_lenient(read: Read) -> None:
    text = "version: 1\napps:\n  - {appDirPath: a, command: [x], daprHTTPMaxRequestSize: 4}\n"
    assert "daprHTTPMaxRequestSize" in fault(read, text)
    assert len(read(text, "--config-lenient")) == 1


def test_dependencies_in_a_cycle_are_a_fault(read: Read) -> None:
    text = """
version: 1
apps:
  - {appDirPath: a, command: [x], dependsOn: [b]}
  - {appDirPath: b, command: [x], dependsOn: [a]}
"""
    assert "a -> b -> a" in fault(read, text)


def test_dependencies_are_kept(read: Read) -> None:
    _, second = read(
        "version: 1\napps:\n- {appDirPath: a, command: [x]}\n- {appDirPath: b, command: [x], dependsOn: [a]}\n"
    )
    assert second.depends_on == ("a",)


def test_cycles_are_found_wherever_they_are() -> None:
    assert find_cycle({"a": ["b"], "b": ["c"], "c": []}) == ()
    assert find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ("b", "c", "b")
    assert find_cycle({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}) == ()


def test_run_file_comes_from_a_folder_a_file_or_standard_input(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(TWO)
    assert find(str(tmp_path)) == (tmp_path / "dapr.yaml", tmp_path)
    assert find(str(tmp_path / "dapr.yaml")) == (tmp_path / "dapr.yaml", tmp_path)
    with pytest.raises(CliError, match=r"contains no dapr\.yaml"):
        find(str(tmp_path / "a"))
    with pytest.raises(CliError, match="expected a file"):
        find(str(tmp_path / "run.json"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TWO.encode())))
    monkeypatch.chdir(tmp_path)
    env = {"POSTERN_HOME": str(tmp_path / "root")}
    specs = read_run_file("-", flags=(), env=env, chance=random.Random(1))
    assert [spec.app_id for spec in specs] == ["a", "second"]
    assert specs[0].folder == tmp_path / "a"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version: 1\napps: []\nfoo: 1\n", "<stdin>:3: foo: unknown key"),
        ("version: 1\napps:\n  - {appID: a, appDirPath: nowhere}\n", "<stdin>:3: apps[0].appDirPath"),
    ],
)
def test_fault_of_a_run_file_from_standard_input_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CliError) as raised:
        read_run_file("-", flags=(), env={}, chance=random.Random(1))
    assert told in str(raised.value)
    assert ("--config-lenient" in str(raised.value)) == ("unknown key" in told)


def test_environment_and_command_are_the_text_that_is_written(read: Read) -> None:
    (spec,) = read("""
version: 1
common:
  env: {PY: 3.10, FLAG: yes, y: n}
apps:
  - appDirPath: a
    env:
      NOPE: no
      HEX: 0x10
      OCTAL: 0755
      PLUS: +5
      BIG: 1e3
      TRUE: True
      TIME: 12:30
      DAY: 2026-11-28
      EMPTY:
      NULL: ~
      QUOTED: "3.10"
    command: [x, 3.10, yes, 0x10, 0755, off]
""")
    assert dict(spec.env) == {
        "PY": "3.10",
        "FLAG": "yes",
        "y": "n",
        "NOPE": "no",
        "HEX": "0x10",
        "OCTAL": "0755",
        "PLUS": "+5",
        "BIG": "1e3",
        "TRUE": "True",
        "TIME": "12:30",
        "DAY": "2026-11-28",
        "EMPTY": "",
        "NULL": "",
        "QUOTED": "3.10",
    }
    assert spec.command == ("x", "3.10", "yes", "0x10", "0755", "off")


def test_app_without_a_command_is_a_sidecar_alone(read: Read) -> None:
    (spec,) = read("version: 1\napps: [{appDirPath: a, appPort: 5000, daprHTTPPort: 3510}]\n")
    assert spec.command == ()
    assert spec.settings.app_port == 5000


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("daprHTTPPort: 3600", "daprHTTPPort: 3600", "apps[1].daprHTTPPort: 3600 is also daprHTTPPort of x"),
        ("appPort: 3600", "daprGRPCPort: 3600", "apps[1].daprGRPCPort: 3600 is also appPort of x"),
        ("metricsPort: 9100", "upstreams: {x: 9100}", "apps[1].upstreams: 9100 is also metricsPort of x"),
        ("daprInternalGRPCPort: 1, metricsPort: 1", "appPort: 0", "apps[0].metricsPort: 1 is also daprInternalGRPCPort of x"),
    ],
)  # fmt: skip
def test_port_that_is_given_twice_is_found_before_anything_starts(
    read: Read, first: str, second: str, said: str
) -> None:
    text = "version: 1\napps:\n- {appDirPath: a, appID: x, %s}\n- {appDirPath: b, appID: z, %s}\n"
    assert said in fault(read, text % (first, second))


def test_ports_left_to_chance_and_of_apps_elsewhere_may_be_the_same(read: Read) -> None:
    text = "{daprHTTPPort: 0, appPort: 80, appChannelAddress: 192.0.2.%d, appDirPath: a, appID: x%d}"
    assert len(read("version: 1\napps:\n" + "".join(f"- {text % (n, n)}\n" for n in (1, 2)))) == 2


def test_fault_that_all_apps_share_is_told_once(read: Read) -> None:
    apps = "".join(f"- {{appDirPath: a, appID: x{n}}}\n" for n in range(10))
    said = fault(read, f"version: 1\ncommon: {{appProtocol: ftp}}\napps:\n{apps}")
    assert said.count("ftp") == 1
    assert "for 10 apps: x0, x1" in said
