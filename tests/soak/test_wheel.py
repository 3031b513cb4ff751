"""What `make wheel` builds is whole, installs without cargo, and runs."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from proxy.settings.version import VERSION
from tests.support.processes import REPOSITORY

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is missing: https://rustup.rs"),
]
CRATES = "proxy/engine/native/crates"


def run(args: Sequence[str | os.PathLike[str]], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run to the end; what it printed. Fails with that where the program does."""
    done = subprocess.run(
        args, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist() -> Path:
    """The folder of a wheel and a source distribution built just now."""
    run(("make", "wheel"), REPOSITORY)
    return REPOSITORY / "dist"


def test_wheel_holds_the_engine_and_no_sources_of_it(dist: Path) -> None:
    (wheel,) = dist.glob(f"postern-{VERSION}-cp311-abi3-manylinux_*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "proxy/engine/native/_native.abi3.so" in names
    assert [name for name in names if name.endswith((".rs", "Cargo.toml")) or CRATES in name] == []


def test_source_distribution_holds_the_crates(dist: Path) -> None:
    with tarfile.open(dist / f"postern-{VERSION}.tar.gz") as archive:
        names = set(archive.getnames())
    for name in ("Cargo.lock", "core/src/lib.rs", "binding/src/lib.rs", "build_backend.py"):
        assert f"postern-{VERSION}/{CRATES}/{name}" in names
    assert not any("/target/" in name for name in names)


def test_wheel_runs_in_a_clean_environment_without_cargo(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob(f"postern-{VERSION}-cp311-abi3-manylinux_*.whl")
    run((sys.executable, "-m", "venv", "clean"), tmp_path)
    clean = tmp_path / "clean" / "bin"
    env = {"PATH": f"{clean}:/usr/bin:/bin", "HOME": str(tmp_path)}
    assert shutil.which("cargo", path=env["PATH"]) is None
    constraints = REPOSITORY / ".ci" / "constraints.txt"
    run((clean / "python", "-m", "pip", "install", "-q", "-c", constraints, wheel), tmp_path, env)
    said = run((clean / "postern", "version"), tmp_path, env)
    assert f"Runtime version: {VERSION}" in said
    assert "Engine: native" in said
    loaded = "import proxy.engine.native.adapter as engine; print(engine.__file__)"
    assert str(tmp_path) in run((clean / "python", "-I", "-c", loaded), tmp_path, env)
