"""Our daprd in Dapr's folder, and what was there before. What Dapr's commands do with it is in tests/integration/cli/test_shim.py."""

import os
import subprocess
from pathlib import Path

import pytest

from proxy.cli.dapr_home import dapr_folder
from proxy.cli.errors import CliError, UsageError
from proxy.cli.shim import init, install, our_daprd, remove, uninstall


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a home" / ".dapr"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A program in a folder whose name a shell would split."""
    program = tmp_path / "our bin" / "daprd"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "ours: $*"\n')
    program.chmod(0o755)
    return program


def theirs(folder: Path) -> Path:
    program = folder / "bin" / "daprd"
    program.parent.mkdir(parents=True)
    program.write_text("theirs")
    return program


def test_folder_is_the_one_that_daprs_commands_look_into() -> None:
    env = {"DAPR_RUNTIME_PATH": "/runtime", "HOME": "/home/ada"}
    assert dapr_folder("/given", env) == Path("/given/.dapr")
    assert dapr_folder(None, env) == Path("/runtime/.dapr")
    assert dapr_folder("", {"HOME": "/home/ada"}) == Path("/home/ada/.dapr")
    with pytest.raises(CliError, match="no home folder"):
        dapr_folder(None, {})


def test_shim_passes_all_words_on(folder: Path, ours: Path) -> None:
    (told,) = install(folder, ours, force=False)
    shim = folder / "bin" / "daprd"
    assert str(shim) in told
    done = subprocess.run([shim, "--app-id", "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == "ours: --app-id a b\n"
    assert (folder / "components").is_dir()
    assert "daprConfig" in (folder / "config.yaml").read_text()
    assert install(folder, ours, force=False) == (told,)  # again changes nothing
    assert sorted(os.listdir(folder / "bin")) == ["daprd"]


def test_configuration_of_the_user_stays(folder: Path, ours: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("mine")
    install(folder, ours, force=False)
    assert (folder / "config.yaml").read_text() == "mine"


def test_daprs_own_is_kept_and_comes_back(folder: Path, ours: Path) -> None:
    program = theirs(folder)
    with pytest.raises(CliError, match="is not postern's"):
        install(folder, ours, force=False)
    assert program.read_text() == "theirs"
    kept, _ = install(folder, ours, force=True)
    assert "what was here before" in kept
    assert "the one of before is back" in remove(folder)
    assert program.read_text() == "theirs"
    with pytest.raises(CliError, match="is not postern's: nothing to take away"):
        remove(folder)


def test_a_second_backup_is_not_written_over_the_first(folder: Path, ours: Path) -> None:
    program = theirs(folder)
    install(folder, ours, force=True)
    program.write_text("another of theirs")
    with pytest.raises(CliError, match="is there already"):
        install(folder, ours, force=True)
    assert program.read_text() == "another of theirs"


def test_shim_alone_is_removed(folder: Path, ours: Path) -> None:
    with pytest.raises(CliError, match="is not there"):
        remove(folder)
    install(folder, ours, force=False)
    assert "removed" in remove(folder)
    assert os.listdir(folder / "bin") == []


def test_commands_tell_what_they_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    with pytest.raises(UsageError, match="--force is for --shim"):
        init(force=True)
    init(shim=True, slim=True, dapr_path=str(home), runtime_path=str(root))
    assert str(our_daprd()) in (home / ".dapr" / "bin" / "daprd").read_text()
    uninstall(dapr_path=str(home))
    told = "".join(capsys.readouterr())
    assert f"{root}: sidecars meet here" in told
    assert "removed" in told


def test_links_that_lead_elsewhere_are_not_written_through(folder: Path, ours: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder / "bin").mkdir(parents=True)
    (folder / "config.yaml").symlink_to(elsewhere)
    install(folder, ours, force=False)
    assert not elsewhere.exists()
    (folder / "bin" / f".daprd.{os.getpid()}").symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        install(folder, ours, force=False)
    assert not elsewhere.exists()


def test_pipe_in_the_place_of_daprd_is_not_read(folder: Path, ours: Path) -> None:
    (folder / "bin").mkdir(parents=True)
    os.mkfifo(folder / "bin" / "daprd")
    with pytest.raises(CliError, match="is not postern's"):
        install(folder, ours, force=False)
