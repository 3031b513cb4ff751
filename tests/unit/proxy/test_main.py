"""How a sidecar's process answers questions and reports errors."""

import tomllib
from importlib import metadata

import pytest

from proxy.__main__ import asked, main
from proxy.settings.values import OwnPort, is_loopback
from proxy.settings.version import DAPR_VERSION, VERSION, build_info, has_native
from tests.support.processes import REPOSITORY


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (["--version"], "version"),
        (["-version"], "version"),
        (["--app-id=a", "--build-info"], "build-info"),
        (["--wait"], "wait"),
        (["-h"], "help"),
        (["--app-id=a"], None),
        (["version"], None),
        ([], None),
    ],
)
def test_questions_are_found_among_the_flags(words: list[str], question: str | None) -> None:
    assert asked(words) == question


def test_version_is_one_line_and_the_packages_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{VERSION}\n"
    assert metadata.version("postern") == VERSION
    assert f"Version: {VERSION}" in build_info()
    assert ("native" in build_info()) is has_native()


def test_version_of_daprd_is_one_that_daprs_commands_compare(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"], program="daprd") == 0
    assert capsys.readouterr().out == f"{DAPR_VERSION}+postern.{VERSION}\n"


def test_version_is_written_nowhere_else() -> None:
    crates = sorted((REPOSITORY / "proxy" / "engine" / "native" / "crates").glob("**/Cargo.toml"))
    for path in (REPOSITORY / "pyproject.toml", *crates):
        read = tomllib.loads(path.read_text(encoding="utf-8"))
        for table in (read.get("project"), read.get("package"), read.get("workspace", {}).get("package")):
            assert "version" not in (table or {}), path


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], program="daprd") == 0
    assert capsys.readouterr().out.startswith("usage: daprd --app-id ID")


def test_faults_go_to_standard_error_with_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--app-id=a.b", "--nope"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "2 faults" in said.err
    assert "--app-id" in said.err
    assert "--nope" in said.err


def test_wait_with_a_bad_port_is_used_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wait", "--dapr-http-port=x"]) == 2
    assert "--dapr-http-port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("app", "variable"), [("cart", "CART_ADDR"), ("a-b.c", "A_B_C_ADDR"), ("Mixed_9", "MIXED_9_ADDR")]
)
def test_own_port_names_its_variable(app: str, variable: str) -> None:
    assert OwnPort(app, 1).variable == variable
