"""The command line of `postern run`."""

import random
from pathlib import Path

import pytest

from proxy.cli.errors import UsageError
from proxy.cli.run import app_id_of, main, read, single
from proxy.cli.unit import sidecar_alone
from proxy.settings.version import VERSION


def test_run_parts_the_sidecars_flags_from_the_apps_command() -> None:
    asked = read(
        ["--app-id", "cart", "-p", "8080", "--enable-mtls", "--", "python", "app.py", "--app-id", "x"]
    )
    assert asked.flags == ("--app-id=cart", "--app-port=8080", "--enable-mtls")
    assert asked.command == ("python", "app.py", "--app-id", "x")


def test_run_takes_the_first_plain_word_as_the_command() -> None:
    asked = read(["-a=cart", "python", "--", "app.py"])
    assert asked.flags == ("--app-id=cart",)
    assert asked.command == ("python", "--", "app.py")


@pytest.mark.parametrize(
    ("short", "flag"),
    [("-a", "app-id"), ("-p", "app-port"), ("-P", "app-protocol"), ("-c", "config"), ("-H", "dapr-http-port"),
     ("-G", "dapr-grpc-port"), ("-I", "dapr-internal-grpc-port"), ("-M", "metrics-port"), ("-u", "unix-domain-socket")],
)  # fmt: skip
def test_run_knows_the_short_names(short: str, flag: str) -> None:
    assert read([short, "x", "--", "y"]).flags == (f"--{flag}=x",)


def test_run_leaves_unknown_flags_to_the_sidecars_parser(tmp_path: Path) -> None:
    asked = read(["--ap-port=1", "--app-id=a", "--", "x"])
    with pytest.raises(UsageError, match="did you mean --app-port"):
        single(asked, {"POSTERN_HOME": str(tmp_path / "root")}, tmp_path, random.Random(1))


def test_run_leaves_what_follows_the_command_alone() -> None:
    assert read(["-a", "x", "curl", "-k"]).command == ("curl", "-k")
    assert read(["-a", "x", "--", "curl", "-k"]).command == ("curl", "-k")


def test_run_flag_without_value_is_refused() -> None:
    with pytest.raises(UsageError, match="a value is missing"):
        read(["--app-id"])
    with pytest.raises(UsageError, match="a value is missing"):
        read(["--app-id", "--", "x"])


def test_run_reads_its_own_flags() -> None:
    asked = read(["-f", "dapr.yaml", "--keep-going"])
    assert asked.run_file == "dapr.yaml"
    assert asked.keep_going
    assert read(["--run-file=x"]).run_file == "x"
    assert read(["--help"]).help


def test_run_without_a_command_is_a_sidecar_alone(tmp_path: Path) -> None:
    spec = single(
        read(["--app-id=a", "--app-port=5000"]),
        {"POSTERN_HOME": str(tmp_path / "root")},
        tmp_path,
        random.Random(1),
    )
    assert spec.command == ()
    assert sidecar_alone(spec) == "start the app yourself, on 127.0.0.1:5000"


def test_run_is_dev_and_names_the_app_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my shop.v2"
    folder.mkdir()
    spec = single(read(["--", "x"]), {"POSTERN_HOME": str(tmp_path / "root")}, folder, random.Random(1))
    assert spec.app_id == "my-shop-v2"
    assert spec.settings.profile == "dev"
    assert spec.folder == folder


@pytest.mark.parametrize(
    ("name", "app_id"), [("cart", "cart"), ("--", "app"), ("a" * 80, "a" * 63), ("ä", "app")]
)
def test_app_id_of_a_folder_is_always_valid(name: str, app_id: str) -> None:
    assert app_id_of(Path("/") / name) == app_id


def test_run_profile_can_be_chosen(tmp_path: Path) -> None:
    spec = single(
        read(["--profile=production", "-a", "x", "y"]),
        {"POSTERN_HOME": str(tmp_path / "root")},
        tmp_path,
        random.Random(1),
    )
    assert spec.settings.profile == "production"


def test_run_app_port_0_is_any_free_one_for_a_command_and_none_without(tmp_path: Path) -> None:
    env = {"POSTERN_HOME": str(tmp_path / "root")}
    spec = single(read(["--app-id=a", "-p", "0", "--", "x"]), env, tmp_path, random.Random(1))
    assert spec.settings.app_port in range(20_000, 30_000)
    assert spec.chosen_port
    alone = single(read(["--app-id=a", "-p", "0"]), env, tmp_path, random.Random(1))
    assert (alone.settings.app_port, alone.chosen_port) == (None, False)


def test_run_tells_its_version_and_leaves_the_apps_own_question_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{VERSION}\n"
    assert not read(["--", "python", "--version"]).version


def test_run_takes_the_users_configuration_and_components_where_no_flag_names_others(
    at_home: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "home" / ".dapr"
    (tmp_path / "own.yaml").write_text("")
    found = single(read(["-a=x"]), at_home, tmp_path, random.Random(1))
    assert found.found == (home / "config.yaml", home / "components")
    assert found.settings.config_paths == (home / "config.yaml",)
    assert found.settings.resources_paths == (home / "components",)
    named = ["-a=x", "-c", str(tmp_path / "own.yaml"), "--components-path", str(tmp_path)]
    spec = single(read(named), at_home, tmp_path, random.Random(1))
    assert spec.found == ()
    assert spec.settings.config_paths == (tmp_path / "own.yaml",)
    assert spec.settings.resources_paths == (tmp_path,)
    (home / "config.yaml").unlink()
    (home / "components").rmdir()
    assert single(read(["-a=x"]), at_home, tmp_path, random.Random(1)).found == ()
    assert single(read(["-a=x"]), {"POSTERN_HOME": str(tmp_path)}, tmp_path, random.Random(1)).found == ()
