"""The sentry and the files of this host's authority, and sentries elsewhere that sidecars here were told of."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from msgspec import Struct

from proxy.cli.checks.findings import Finding, Probe, fail, ok, warn
from proxy.cli.checks.host import Dated, duration, utc_now
from proxy.cli.checks.network import reason
from proxy.contract.addresses import split_address
from sentry.bundle import TrustBundle
from sentry.chain import parse_certificates
from sentry.client import client_context
from sentry.errors import BundleError, IdentityError, StoreError
from sentry.local import LocalPaths
from sentry.private_files import check_folder, read_file
from sentry.spiffe import verify_leaf
from sentry.store import DiskStore, StoreNames

WARN_DAYS: Final = 30  # as `postern mtls expiry`
_DAY_S: Final = 86_400.0
_HANDSHAKE_S: Final = 3.0


class Authority(Struct, frozen=True, kw_only=True):
    """What the files hold; None where there are none or they can't be read, and `problem` says why not."""

    bundle: TrustBundle | None = None
    issuer: x509.Certificate | None = None
    problem: str = ""

    @property
    def dated(self) -> tuple[Dated, ...]:
        """The dates of its certificates."""
        named = [("trust anchor", root) for root in (self.bundle.roots if self.bundle else ())]
        named += [("issuer", self.issuer)] if self.issuer is not None else []
        return tuple(
            Dated(whose=name, not_before=each.not_valid_before_utc, not_after=each.not_valid_after_utc)
            for name, each in named
        )


def read_authority(root: Path) -> Authority:
    """The certificates, and whether the files beside them are whole and private. Blocks on the disk."""
    folder = LocalPaths(root=root).anchors.parent
    if not folder.exists():
        return Authority()
    problem = ""
    try:
        check_folder(folder)
        DiskStore(folder).load()
    except (StoreError, OSError) as error:
        problem = str(error)
    names = StoreNames()
    try:
        bundle = TrustBundle.parse(read_file(folder / names.anchors, is_secret=False, allow_loose=True))
        issuer = parse_certificates(read_file(folder / names.issuer, is_secret=False, allow_loose=True))[0]
    except (StoreError, BundleError, OSError) as error:
        return Authority(problem=problem or str(error))
    return Authority(bundle=bundle, issuer=issuer, problem=problem)


def authority_probes(
    root: Path, authority: Authority, *, is_needed: bool, others: Iterable[str]
) -> tuple[Probe, ...]:
    """is_needed: a sidecar here has its certificate from the local sentry. others: `host:port` or `unix:/path` of sentries elsewhere."""
    socket = LocalPaths(root=root).socket

    async def local() -> Sequence[Finding]:
        return await _local(socket, authority, is_needed=is_needed)

    async def files() -> Sequence[Finding]:
        return check_files(authority, utc_now())

    return (
        Probe(id="sentry", what="the sentry of this host", run=local, within_s=2 * _HANDSHAKE_S),
        Probe(id="authority-files", what="the local authority", run=files),
        *map(_probe_elsewhere, dict.fromkeys(others)),
    )


def _probe_elsewhere(address: str) -> Probe:
    async def run() -> Sequence[Finding]:
        return await _elsewhere(address)

    return Probe(id="sentry", what=f"sentry at {address}", run=run)


def check_files(authority: Authority, now: datetime) -> tuple[Finding, ...]:
    """Owners and modes, and how long the certificates last; nothing where there is no authority yet."""
    found: list[Finding] = []
    if authority.problem:
        found.append(fail("authority-files", authority.problem))
    elif authority.bundle is not None:
        found.append(ok("authority-files", "the authority's keys are intact and private"))
    for each in authority.dated:
        check = "issuer" if each.whose == "issuer" else "trust-anchors"
        left_s = (each.not_after - now).total_seconds()
        on = f"{each.not_after:%Y-%m-%d}"
        if left_s <= 0:
            found.append(fail(check, f"the {each.whose} ended {duration(-left_s)} ago, on {on}"))
        elif left_s < WARN_DAYS * _DAY_S:
            found.append(warn(check, f"the {each.whose} ends in {duration(left_s)}, on {on}"))
        else:
            found.append(ok(check, f"the {each.whose} lasts {duration(left_s)}, until {on}"))
    return tuple(found)


async def _local(socket: Path, authority: Authority, *, is_needed: bool) -> Sequence[Finding]:
    if authority.bundle is None:
        if authority.problem:
            return ()  # what is wrong with the files is told there
        if is_needed:
            return (fail("sentry", f"there are no trust anchors in {socket.parent}"),)
        return (ok("sentry", "no local authority yet: the first sidecar with mutual TLS makes one"),)
    try:
        der = await _handshake(f"unix:{socket}", authority.bundle)
    except (FileNotFoundError, ConnectionRefusedError):
        if is_needed:
            return (fail("sentry", f"the sentry of this host does not run: nobody listens on {socket}"),)
        return (ok("sentry", "no sentry runs, and none is needed: the next sidecar starts it"),)
    except ssl.SSLCertVerificationError as error:
        return (
            fail("sentry", f"the sentry's certificate is refused: {error.verify_message}"),
            *await _dates(socket),
        )
    except (OSError, ValueError) as error:
        return (fail("sentry", f"the sentry at {socket}: {reason(error)}"),)
    return (_named("the sentry of this host", der),)


async def _dates(socket: Path) -> tuple[Finding, ...]:
    """What the refused certificate says of our clock."""
    try:
        return _skew("the sentry", await _handshake(f"unix:{socket}", None))
    except (OSError, ValueError):
        return ()


async def _elsewhere(address: str) -> Sequence[Finding]:
    try:
        der = await _handshake(address, None)
    except (OSError, ValueError) as error:
        return (
            fail("sentry", f"sentry at {address}: {reason(error)}", "start it, or correct --sentry-address"),
        )
    return (_named(f"sentry at {address}", der), *_skew(f"the sentry at {address}", der))


def _named(who: str, der: bytes) -> Finding:
    try:
        return ok("sentry", f"{who} answers as {verify_leaf(der, as_server=True)}")
    except IdentityError as error:
        return fail("sentry", f"{who} presents a certificate that is not a valid SVID: {error}")


def _skew(whose: str, der: bytes) -> tuple[Finding, ...]:
    leaf = x509.load_der_x509_certificate(der)
    now = utc_now()
    early_s = (leaf.not_valid_before_utc - now).total_seconds()
    late_s = (now - leaf.not_valid_after_utc).total_seconds()
    if early_s > 0:
        return (fail("clock", f"the clock is {duration(early_s)} or more behind that of {whose}"),)
    if late_s > 0:
        text = f"the clock is {duration(late_s)} or more ahead of that of {whose}, or its certificate was not renewed"
        return (fail("clock", text),)
    return (ok("clock", f"the clock agrees with the certificate of {whose}"),)


async def _handshake(address: str, anchors: TrustBundle | None) -> bytes:
    """The leaf that a sentry presents, in DER; verified where there are anchors. Raises: OSError (ssl.SSLError among them), ValueError."""
    if anchors is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # only looked at: nothing is sent, and nothing believed
    else:
        context = client_context(anchors)
    async with asyncio.timeout(_HANDSHAKE_S):
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            _, writer = await asyncio.open_unix_connection(path, ssl=context, server_hostname="")
        else:
            host, port = split_address(address.rpartition("//")[2])
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return tls.getpeercert(True) or b""
    finally:
        writer.transport.abort()
