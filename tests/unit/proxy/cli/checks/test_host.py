"""The checks of this host, on made-up roots and clocks, and on real ports."""

import asyncio
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nameresolution.host_registry import Entry
from proxy.cli.checks import host
from proxy.cli.checks.findings import CHECKS, run_all
from proxy.cli.checks.host import (
    Dated,
    UsualPort,
    check_clock,
    check_disk,
    check_ports,
    check_python,
    check_runtime_root,
    duration,
    engine_unusable,
    host_probes,
)
from proxy.engine.native.seam import REBUILD

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_python_must_be_new_enough() -> None:
    assert check_python((3, 11, 0)).state == "ok"
    old = check_python((3, 10, 9))
    assert (old.state, old.hint) == ("failed", CHECKS["python"].hint)
    assert "Python 3.10.9, which is older than 3.11" in old.text


def test_runtime_root_is_private_and_writable_or_can_be_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (found,) = check_runtime_root(tmp_path)
    assert (found.id, found.state) == ("runtime-root", "ok")
    (found,) = check_runtime_root(tmp_path / "sub" / "more")
    assert (found.state, found.text.rpartition(" is ")[2]) == ("ok", "not there yet, and can be made")
    tmp_path.chmod(0o755)
    (found,) = check_runtime_root(tmp_path)
    assert (found.state, "mode 0755" in found.text) == ("failed", True)
    assert f"chmod 700 {tmp_path}" in found.hint
    (tmp_path / "file").touch()
    (found,) = check_runtime_root(tmp_path / "file")
    assert (found.state, "is not a directory" in found.text) == ("failed", True)
    (found,) = check_runtime_root(tmp_path / "file" / "sub")
    assert (found.state, "can't be made in" in found.text) == ("failed", True)


def test_root_whose_sockets_would_have_too_long_names_fails() -> None:
    (found,) = check_runtime_root(Path("/tmp") / ("x" * 100))
    assert (found.id, found.state) == ("socket-path", "failed")
    assert "has 124 bytes, 17 too many" in found.text


def test_disk_is_judged_by_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(tmp_path / "not" / "there").text.endswith(f"on the disk of {tmp_path}")
    monkeypatch.setattr(host, "ENOUGH_BYTES", 1 << 70)
    assert check_disk(tmp_path).state == "warning"
    monkeypatch.setattr(host, "LEAST_BYTES", 1 << 70)
    assert check_disk(tmp_path).state == "failed"
    if os.access("/proc/mounts", os.R_OK) and " /sys sysfs ro" in Path("/proc/mounts").read_text():
        assert "read-only" in check_disk(Path("/sys")).text


def test_port_that_somebody_holds_is_named_with_the_holder() -> None:
    with socket.socket() as held, socket.socket() as free:
        held.bind(("127.0.0.1", 0))
        held.listen()
        free.bind(("127.0.0.1", 0))
        taken, other = held.getsockname()[1], free.getsockname()[1]
        free.close()
        ports = (UsualPort(taken, "the HTTP API"), UsualPort(other, "metrics"))
        of_free, of_taken = check_ports((), ports)
        assert (of_free.state, of_free.text) == ("ok", f"port {other} is free")
        assert of_taken.state == "warning"
        assert of_taken.text.startswith(f"port {taken} (the HTTP API) is held by ")
        assert f"(pid {os.getpid()})" in of_taken.text
        entry = Entry(app_id="cart", instance="i", peer_port=1, http_port=taken)
        (of_taken,) = check_ports((entry,), ports[:1])
        assert (of_taken.state, of_taken.text.endswith("is held by the sidecar of cart")) == ("ok", True)
        (of_taken,) = check_ports((), (UsualPort(taken, "other programs", is_own=False),))
        assert of_taken.state == "ok"


def test_clock_is_judged_by_certificates_and_by_clocks_that_nobody_turns() -> None:
    day = timedelta(days=1)
    good = Dated(whose="issuer", not_before=NOW - day, not_after=NOW + day)
    (found,) = check_clock(NOW, (good,), ())
    assert (found.state, found.text) == (
        "ok",
        "the clock says 2026-01-02 03:04:05 UTC; by it the issuer is valid",
    )
    (found,) = check_clock(NOW - 2 * day, (good,), ())
    assert found.text == "the clock is 1d or more behind: the certificate of issuer is not valid yet"
    (found,) = check_clock(NOW + 2 * day, (good,), ())
    assert (found.state, found.text) == ("failed", "by this clock the certificate of issuer ended 1d ago")
    (found,) = check_clock(NOW, (good,), (("cart", 3_700.0),))
    assert found.text == "the clock was turned back by 1h 1m while the sidecar of cart ran"


@pytest.mark.parametrize(("seconds", "text"), [(9.9, "9s"), (61, "1m"), (3_720, "1h 2m"), (86_400 * 3, "3d")])
def test_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("why", "said", "hint"),
    [
        (f"it was built from other sources: {REBUILD}", "it was built from other sources", REBUILD),
        ("wrong ELF class", "wrong ELF class", CHECKS["engine"].hint),
    ],
)
def test_engine_that_does_not_load_has_one_remedy(why: str, said: str, hint: str) -> None:
    found = engine_unusable(why)
    assert (found.state, found.hint) == ("warning", hint)
    assert found.text.endswith(f"can't be used: {said}")


def test_all_probes_of_this_host_answer(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    found = asyncio.run(run_all(host_probes(tmp_path, ())))
    assert {"python", "engine", "runtime-root", "disk", "port"} == {each.id for each in found}
    assert all(each.hint for each in found if each.state != "ok")
