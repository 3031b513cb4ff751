"""The certificates that Envoy gets: made by sentry's own code, so both meshes present the same profile (P-256, SPIFFE ids, one issuer)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sentry.authority import Authority, StoredBundle, generate
from sentry.issuer import dump_key, new_key
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
    return _write(folder, authority, CALLER), _write(folder, authority, CALLEE)


def _write(folder: Path, authority: Authority, spiffe_id: SpiffeId) -> Identity:
    key = new_key()
    signed = authority.sign(spiffe_id, key.public_key())
    stem = folder / spiffe_id.app_id
    identity = Identity(
        spiffe_id=str(spiffe_id),
        chain=stem.with_suffix(".crt"),
        key=stem.with_suffix(".key"),
        roots=folder / "roots.crt",
    )
    identity.chain.write_bytes(signed.chain_pem)
    identity.key.touch(mode=0o600)
    identity.key.write_bytes(dump_key(key))
    identity.roots.write_bytes(signed.bundle.pem)
    return identity


def _forget(_stored: StoredBundle) -> None:
    """An authority for one run is kept nowhere."""
