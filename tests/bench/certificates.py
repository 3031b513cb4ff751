"""The certificates that Envoy gets: made by sentry's own code, so both meshes present the same profile (P-256, SPIFFE ids, one issuer)."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sentry.authority import Authority, StoredBundle, generate
from sentry.client import SvidClient, join_token
from sentry.issuer import dump_key, new_key
from sentry.local import ensure_local_sentry
from sentry.spiffe import SpiffeId, sentry_id
from sentry.template import LeafTerms

CALLER: Final = SpiffeId("public", "default", "load")
CALLEE: Final = SpiffeId("public", "default", "bench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Files of one workload."""

    spiffe_id: str
    chain: Path
    key: Path
    roots: Path


def write_identities(folder: Path) -> tuple[Identity, Identity]:
    """Make an authority and the identities of caller and callee in `folder`."""
    now = datetime.now(UTC)
    authority = Authority(
        generate("localhost", "default", now),
        spiffe_id=sentry_id("localhost", "default"),
        terms=LeafTerms(),
        clock=lambda: datetime.now(UTC),
        save=_forget,
    )
    return _sign(folder, authority, CALLER), _sign(folder, authority, CALLEE)


async def sentry_client(runtime_path: Path) -> SvidClient:
    """Who to ask for the certificates of a running mesh."""
    sentry = await asyncio.to_thread(ensure_local_sentry, runtime_path)
    token = join_token(runtime_path, sentry.sentry_id)
    return SvidClient(sentry.address, sentry.anchors, sentry.sentry_id, token)


async def fetch_caller(folder: Path, runtime_path: Path) -> Identity:
    """The caller's identity by the sentry of a running mesh, in `folder`."""
    client = await sentry_client(runtime_path)
    svid = await client.fetch(CALLER.app_id, CALLER.namespace, CALLER.trust_domain)
    return _write(folder, CALLER, svid.chain_pem, svid.key_pem, svid.bundle.pem)


def _sign(folder: Path, authority: Authority, spiffe_id: SpiffeId) -> Identity:
    key = new_key()
    signed = authority.sign(spiffe_id, key.public_key())
    return _write(folder, spiffe_id, signed.chain_pem, dump_key(key), signed.bundle.pem)


def _write(folder: Path, spiffe_id: SpiffeId, chain: bytes, key: bytes, roots: bytes) -> Identity:
    stem = folder / spiffe_id.app_id
    identity = Identity(
        spiffe_id=str(spiffe_id),
        chain=stem.with_suffix(".crt"),
        key=stem.with_suffix(".key"),
        roots=folder / "roots.crt",
    )
    identity.chain.write_bytes(chain)
    identity.key.touch(mode=0o600)
    identity.key.write_bytes(key)
    identity.roots.write_bytes(roots)
    return identity


def _forget(_stored: StoredBundle) -> None:
    """An authority for one run is kept nowhere."""
