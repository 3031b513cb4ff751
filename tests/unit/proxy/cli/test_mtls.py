"""`postern mtls renew-certificate` on an authority's files."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.cli.errors import CliError, UsageError
from proxy.cli.mtls import renew_certificate
from sentry.authority import Holdings, generate
from sentry.store import DiskStore


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The folder of the local authority of the runtime root `tmp_path`."""
    folder = tmp_path / "sentry" / "authority"
    folder.parent.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    with DiskStore(folder) as store:
        store.save(generate("localhost", "default", datetime.now(UTC)).stored())
    return folder


def held(authority: Path) -> Holdings:
    stored = DiskStore(authority).load()
    assert stored is not None
    return Holdings.parse(stored, datetime.now(UTC))


def test_issuer_is_replaced_and_its_end_told(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = held(authority)
    renew_certificate(valid_until=30, runtime_path=str(authority.parents[1]))
    after = held(authority)
    assert (after.bundle, after.issuer == before.issuer) == (before.bundle, False)
    assert (
        f"the new issuer lasts until {after.issuer.not_after:%Y-%m-%d %H:%M} UTC" in capsys.readouterr().err
    )


def test_root_key_is_read_from_elsewhere(authority: Path, tmp_path: Path) -> None:
    key = tmp_path / "root.key"
    (authority / "root.key").rename(key)
    root = str(authority.parents[1])
    with pytest.raises(CliError, match="--private-key"):
        renew_certificate(runtime_path=root)
    before = held(authority)
    renew_certificate(private_key=key, runtime_path=root)
    assert held(authority).issuer != before.issuer
    assert not (authority / "root.key").exists()


def test_own_root_takes_over_in_two_steps(
    authority: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = generate("localhost", "default", datetime.now(UTC))
    stored = other.stored()
    files = {"ca": stored.anchors_pem, "issuer": stored.issuer_pem, "key": stored.issuer_key_pem}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    before = held(authority)
    for is_taken in (False, True):
        renew_certificate(
            ca_root_certificate=tmp_path / "ca",
            issuer_public_certificate=tmp_path / "issuer",
            issuer_private_key=tmp_path / "key",
            runtime_path=str(authority.parents[1]),
        )
        after = held(authority)
        assert set(after.bundle.roots) == {before.root, other.root}
        assert after.issuer == (other.issuer if is_taken else before.issuer)
        assert ("run the same command again" in capsys.readouterr().err) is not is_taken


def test_flags_that_do_not_fit_and_files_that_are_not_there_are_told(authority: Path, tmp_path: Path) -> None:
    root = str(authority.parents[1])
    one = tmp_path / "none.pem"
    with pytest.raises(UsageError, match="belong together"):
        renew_certificate(issuer_private_key=one, runtime_path=root)
    with pytest.raises(UsageError, match="leave it out"):
        renew_certificate(
            ca_root_certificate=one,
            issuer_public_certificate=one,
            issuer_private_key=one,
            private_key=one,
            runtime_path=root,
        )
    with pytest.raises(CliError, match=r"none\.pem: No such file"):
        renew_certificate(private_key=one, runtime_path=root)
    with pytest.raises(CliError, match="no local authority in"):
        renew_certificate(runtime_path=str(tmp_path / "empty"))
    (authority / "issuer.key").unlink()
    with pytest.raises(CliError, match="is missing"):
        renew_certificate(runtime_path=root)
