"""The checks of the authority: its files, and a server in the role of a sentry."""

import asyncio
import ssl
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.cli.checks.authority import authority_probes, check_files, read_authority
from proxy.cli.checks.findings import Finding, run_all
from sentry.authority import Authority as Signing
from sentry.authority import Holdings, generate
from sentry.issuer import dump_key
from sentry.local import LocalPaths
from sentry.spiffe import sentry_id
from sentry.store import DiskStore
from sentry.template import LeafTerms

NOW = datetime.now(UTC)


@pytest.fixture
def root() -> Iterator[Path]:
    """A runtime root with an authority; its path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pchk-") as name:
        folder = LocalPaths(root=Path(name)).anchors.parent
        folder.parent.mkdir(mode=0o700)
        with DiskStore(folder) as store:
            store.save(generate("localhost", "default", NOW).stored())
        yield Path(name)


def told(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(each.id, each.state) for each in found]


def test_files_that_are_whole_and_last_are_well(root: Path) -> None:
    authority = read_authority(root)
    assert told(check_files(authority, NOW)) == [
        ("authority-files", "ok"),
        ("trust-anchors", "ok"),
        ("issuer", "ok"),
    ]
    soon = check_files(authority, NOW + timedelta(days=350))
    assert told(soon)[2] == ("issuer", "warning")
    assert "the issuer ends in 1" in soon[2].text
    assert told(check_files(authority, NOW + timedelta(days=4_000)))[1:] == [
        ("trust-anchors", "failed"),
        ("issuer", "failed"),
    ]


def test_files_that_others_can_read_or_that_are_missing_fail(root: Path) -> None:
    folder = LocalPaths(root=root).anchors.parent
    (folder / "issuer.key").chmod(0o644)
    (found, *rest) = check_files(read_authority(root), NOW)
    assert (found.id, found.state, "issuer.key" in found.text) == ("authority-files", "failed", True)
    assert len(rest) == 2
    (folder / "issuer.key").chmod(0o600)
    (folder / "issuer.crt").unlink()
    (found,) = check_files(read_authority(root), NOW)
    assert (found.state, "issuer.crt" in found.text) == ("failed", True)
    (folder / "ca.crt").write_text("x")
    assert read_authority(root).bundle is None
    assert look(root, is_needed=True) == ()


def test_root_without_an_authority_has_nothing_to_check(tmp_path: Path) -> None:
    assert check_files(read_authority(tmp_path), NOW) == ()


def look(root: Path, *, is_needed: bool, others: tuple[str, ...] = ()) -> tuple[Finding, ...]:
    probes = authority_probes(root, read_authority(root), is_needed=is_needed, others=others)
    return asyncio.run(run_all([probe for probe in probes if probe.id == "sentry"]))


def test_sentry_that_nobody_needs_need_not_run(root: Path, tmp_path: Path) -> None:
    assert told(look(tmp_path, is_needed=False)) == [("sentry", "ok")]
    assert told(look(tmp_path, is_needed=True)) == [("sentry", "failed")]
    assert told(look(root, is_needed=False)) == [("sentry", "ok")]
    (found,) = look(root, is_needed=True)
    assert (found.state, "nobody listens on" in found.text) == ("failed", True)


def serve(root: Path, holdings: Holdings, now: datetime, address: str = "") -> tuple[Finding, ...]:
    """Check while a server shows a certificate that an authority signed at `now`."""
    signing = Signing(
        holdings,
        spiffe_id=sentry_id("localhost", "default"),
        terms=LeafTerms(),
        clock=lambda: now,
        save=lambda _: None,
    )
    signed, key = signing.sign_own()
    files = root / "leaf.pem", root / "leaf.key"
    files[0].write_bytes(signed.chain_pem)
    files[1].write_bytes(dump_key(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.set_alpn_protocols(["h2"])

    async def run() -> tuple[Finding, ...]:
        if address:
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
            others: tuple[str, ...] = (f"127.0.0.1:{server.sockets[0].getsockname()[1]}",)
        else:
            socket = LocalPaths(root=root).socket
            server = await asyncio.start_unix_server(lambda _, writer: writer.close(), socket, ssl=context)
            others = ()
        async with server:
            probes = authority_probes(root, read_authority(root), is_needed=not address, others=others)
            return await run_all([probe for probe in probes if probe.id == "sentry"])

    return asyncio.run(run())


def held(root: Path) -> Holdings:
    stored = DiskStore(LocalPaths(root=root).anchors.parent).load()
    assert stored is not None
    return Holdings.parse(stored, NOW)


def test_sentry_is_believed_under_its_anchors_alone(root: Path) -> None:
    (found,) = serve(root, held(root), NOW)
    assert (found.state, found.text) == (
        "ok",
        "the sentry of this host answers as spiffe://localhost/ns/default/dapr-sentry",
    )
    found, clock = serve(root, generate("localhost", "default", NOW), NOW)
    assert (found.state, "certificate is refused" in found.text, clock.state) == ("failed", True, "ok")


def test_sentry_elsewhere_tells_of_our_clock(root: Path) -> None:
    _, named, clock = serve(root, held(root), NOW, "tcp")
    assert (named.state, clock.state, clock.id) == ("ok", "ok", "clock")
    holdings = generate("localhost", "default", NOW - timedelta(days=3))
    _, _, clock = serve(root, holdings, NOW - timedelta(days=2), "tcp")
    assert (clock.state, "ahead of that of the sentry at 127.0.0.1" in clock.text) == ("failed", True)
    (_, gone) = look(root, is_needed=False, others=("127.0.0.1:1",))
    assert gone.text == "sentry at 127.0.0.1:1: nobody listens there (connection refused)"
