"""`postern mtls`: whether what runs here uses mutual TLS, until when the local authority's certificates last, copies of them, new ones."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.errors import CliError, UsageError
from proxy.cli.fleet import ask, entries, nothing_runs, root_of
from proxy.cli.options import RuntimePath
from proxy.cli.tables import Column, put, put_table, tell

if TYPE_CHECKING:
    from sentry.authority import StoredBundle

mtls = typer.Typer(
    help="Show whether sidecars use mutual TLS; `expiry` and `export` are about the local authority.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
_WARN_DAYS = 30
_COLUMNS = (Column("app id"), Column("namespace"), Column("mtls"), Column("spiffe id"))


@mtls.callback()
def overview(context: typer.Context, runtime_path: RuntimePath = None) -> None:
    """Show which of the sidecars here use mutual TLS.

    Example: postern mtls
    """
    if context.invoked_subcommand is not None:
        return
    root = root_of(runtime_path, os.environ)
    rows = []
    for found in asyncio.run(ask(entries(root), "/status")):
        identity = (found.answer or {}).get("identity")
        told = identity if isinstance(identity, dict) else {}
        state = {True: "on", False: "off"}.get(told.get("mtls", ""), "unresponsive")
        rows.append(
            {
                "app id": found.entry.app_id,
                "namespace": found.entry.namespace,
                "mtls": state,
                "spiffe id": told.get("spiffeId"),
            }
        )
    if rows:
        put_table(_COLUMNS, rows)
    else:
        tell(nothing_runs(root))


@mtls.command()
def expiry(runtime_path: RuntimePath = None) -> None:
    """Print until when the certificates of the local authority last; 1 if one has expired.

    Example: postern mtls expiry
    """
    from cryptography import x509  # noqa: PLC0415 - no other command needs it

    files = _authority(runtime_path)
    now = datetime.now(UTC)
    ended = False
    for kind, pem in (("root", files["ca.crt"]), ("issuer", files["issuer.crt"])):
        for certificate in x509.load_pem_x509_certificates(pem):
            end = certificate.not_valid_after_utc
            left = end - now
            ended = ended or left.total_seconds() <= 0
            put(
                f"{kind} certificate expires in {left.total_seconds() / 3600:.0f} hours, on {end:%Y-%m-%d %H:%M} UTC"
            )
            if kind == "root" and left.days < _WARN_DAYS:
                tell(
                    f"fewer than {_WARN_DAYS} days are left: `postern mtls renew-certificate` takes a new root"
                )
    if ended:
        raise typer.Exit(1)


@mtls.command()
def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="the folder to write into")] = Path(),
    runtime_path: RuntimePath = None,
) -> None:
    """Copy the root and the issuer of the local authority, with the issuer's key, into a folder.

    Example: postern mtls export --out authority
    """
    from sentry.private_files import write_new  # noqa: PLC0415 - as above

    files = _authority(runtime_path)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        try:
            write_new(out / name, content)
        except FileExistsError as error:
            raise CliError(
                f"{out / name} is there already", hint="choose another folder with --out"
            ) from error
    tell(f"✓ {', '.join(files)} are in {out.absolute()}; whoever has issuer.key can be anybody in this mesh")


@mtls.command("rnc", hidden=True)
@mtls.command("renew-cert", hidden=True)
@mtls.command("renew-certificate")
def renew_certificate(
    *,
    valid_until: Annotated[
        int, typer.Option("--valid-until", min=1, max=3_650, help="days that a new issuer lasts")
    ] = 365,
    private_key: Annotated[
        Path | None, typer.Option("--private-key", help="the root's key, where it is kept elsewhere")
    ] = None,
    ca_root_certificate: Annotated[
        Path | None, typer.Option("--ca-root-certificate", help="the root of an authority of your own")
    ] = None,
    issuer_public_certificate: Annotated[
        Path | None, typer.Option("--issuer-public-certificate", help="its issuer")
    ] = None,
    issuer_private_key: Annotated[
        Path | None, typer.Option("--issuer-private-key", help="the issuer's key")
    ] = None,
    runtime_path: RuntimePath = None,
) -> None:
    """Give the local authority a new issuer, under its root or one of your own; what runs goes on with it.

    Example: postern mtls renew-certificate
    """
    from sentry.authority import Holdings, StoredBundle  # noqa: PLC0415 - see above
    from sentry.errors import SentryError  # noqa: PLC0415 - see above
    from sentry.issuer import load_key  # noqa: PLC0415 - see above
    from sentry.reissue import brought, renewed  # noqa: PLC0415 - see above
    from sentry.store import put as put_files  # noqa: PLC0415 - see above

    own = (ca_root_certificate, issuer_public_certificate, issuer_private_key)
    if any(own) and not all(own):
        raise UsageError(
            "--ca-root-certificate, --issuer-public-certificate and --issuer-private-key belong together"
        )
    if any(own) and private_key is not None:
        raise UsageError("--private-key is for a new issuer under the present root; leave it out")
    folder, stored = _stored(runtime_path)
    now = datetime.now(UTC)
    try:
        current = Holdings.parse(stored, now)
        is_taken = True
        if any(own):
            anchors, issuer, key = (_read(path) for path in own if path is not None)
            given = StoredBundle(anchors_pem=anchors, issuer_pem=issuer, issuer_key_pem=key)
            after, is_taken = brought(current, given, now)
        else:
            root_key = None if private_key is None else load_key(_read(private_key))
            after = renewed(current, root_key=root_key, life=timedelta(days=valid_until), now=now)
        put_files(folder, after.stored())
    except SentryError as error:
        raise CliError(str(error)) from error
    if is_taken:
        tell(
            f"✓ the new issuer lasts until {after.issuer.not_after:%Y-%m-%d %H:%M} UTC; a sentry that runs takes it within seconds"
        )
    else:
        tell(
            "✓ the new root is trusted beside the old one; the issuer stays until all sidecars have renewed their certificates"
        )
        tell(
            "  run the same command again after the lifetime of a certificate (an hour, if not configured) to take the new issuer"
        )


def _stored(runtime_path: str | None) -> "tuple[Path, StoredBundle]":
    """The local authority's folder and files. Raises: CliError."""
    from sentry.errors import StoreError  # noqa: PLC0415 - see above
    from sentry.local import LocalPaths  # noqa: PLC0415 - see above
    from sentry.store import DiskStore  # noqa: PLC0415 - see above

    folder = LocalPaths(root=root_of(runtime_path, os.environ)).anchors.parent
    try:
        stored = DiskStore(folder).load()
    except StoreError as error:
        raise CliError(str(error)) from error
    if stored is None:
        raise CliError(
            f"no local authority in {folder}",
            hint="the first `postern run` makes one; --runtime-path chooses",
        )
    return folder, stored


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from error


def _authority(runtime_path: str | None) -> dict[str, bytes]:
    """The files of the local authority by name, all of one generation. Raises: CliError."""
    from sentry.errors import StoreError  # noqa: PLC0415 - see above
    from sentry.local import LocalPaths  # noqa: PLC0415 - see above
    from sentry.private_files import read_file  # noqa: PLC0415 - see above
    from sentry.store import StoreNames  # noqa: PLC0415 - see above

    root = root_of(runtime_path, os.environ)
    folder = LocalPaths(root=root).anchors.parent
    names = StoreNames()
    for _ in range(2):  # a renewal between two of them is over by the second time
        try:
            files = {
                name: read_file(folder / name, is_secret=name == names.issuer_key) for name in names.required
            }
        except FileNotFoundError as error:
            raise CliError(
                f"no local authority in {folder}",
                hint="the first `postern run` makes one; --runtime-path chooses",
            ) from error
        except (StoreError, OSError) as error:
            raise CliError(str(error)) from error
        if _fit(files[names.issuer], files[names.issuer_key]):
            return files
    raise CliError(f"{folder}: issuer.key is not the key of issuer.crt", hint="restore both from a backup")


def _fit(issuer: bytes, key: bytes) -> bool:
    from cryptography import x509  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - see above
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        certificate = x509.load_pem_x509_certificates(issuer)[0]
        private = load_pem_private_key(key, password=None)
    except ValueError:
        return False
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return private.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)
