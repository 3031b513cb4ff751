"""Join tokens: the proof that a workload of this host's user gives to the sentry of the same runtime root.

A token is a JWT (ES256, at most ten minutes) signed by `sentry/join.key` (0600) in the runtime root: whoever can read
that file may be any workload here, and nobody else may. Dapr's sidecars send it too, through DAPR_SENTRY_TOKEN_FILE.
"""

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sentry.errors import BundleError, StoreError
from sentry.issuer import dump_key, load_key, new_key
from sentry.private_files import check_folder, make_folder, publish_once, read_file
from sentry.spiffe import SpiffeId

ALGORITHM: Final = "ES256"
MAX_LIFETIME_S: Final = 600
_FOLDER: Final = "sentry"
_KEY: Final = "join.key"


def mint(
    root: Path,
    spiffe_id: SpiffeId | str,
    sentry_id: SpiffeId | str,
    ttl_s: int = MAX_LIFETIME_S,
    *,
    clock: Callable[[], float] = time.time,
) -> str:
    """A token that lets its bearer ask the sentry `sentry_id` for `spiffe_id`, once, within `ttl_s` (≤ 600) seconds.

    Makes the runtime root's join key on first use. Blocks for a few file operations. Raises: StoreError.
    """
    key = _load_or_make_key(root)
    issued_at = int(clock())
    claims = {
        "aud": [str(sentry_id)],
        "sub": str(spiffe_id),
        "iat": issued_at,
        "exp": issued_at + min(ttl_s, MAX_LIFETIME_S),
        "jti": secrets.token_hex(16),
    }
    return _sign({"alg": ALGORITHM, "kid": key_id(key.public_key()), "typ": "JWT"}, claims, key)


def jwks(root: Path) -> dict[str, list[dict[str, str]]]:
    """The public half of the join key as a JSON Web Key Set; makes the key on first use. Raises StoreError."""
    public = _load_or_make_key(root).public_key()
    return {"keys": [{**_public_members(public), "kid": key_id(public), "alg": ALGORITHM, "use": "sig"}]}


def key_stamp(root: Path) -> tuple[int, ...]:
    """Changes with the join key's file, its mode and owner, and those of its folder; looks only, a few microseconds. Empty: no key."""
    try:
        folder, file = os.lstat(root / _FOLDER), os.lstat(root / _FOLDER / _KEY)
    except OSError:
        return ()
    return (
        folder.st_ino,
        folder.st_mode,
        folder.st_uid,
        file.st_dev,
        file.st_ino,
        file.st_size,
        file.st_ctime_ns,
    )


def key_id(public: ec.EllipticCurvePublicKey) -> str:
    """The key's thumbprint. Source: RFC 7638 §3."""
    members = _public_members(public)
    canonical = "{" + ",".join(f'"{name}":"{members[name]}"' for name in sorted(members)) + "}"
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _sign(header: Mapping[str, object], claims: Mapping[str, object], key: ec.EllipticCurvePrivateKey) -> str:
    # Source: RFC 7515 §7.1, RFC 7518 §3.4. By hand, because importing PyJWT costs every sidecar's start 60 ms.
    signed = ".".join(
        _base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
    )
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _public_members(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = public.public_numbers()
    x, y = (_base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _load_or_make_key(root: Path) -> ec.EllipticCurvePrivateKey:
    folder = root / _FOLDER
    make_folder(folder)
    check_folder(folder)
    path = folder / _KEY
    try:
        content = read_file(path, is_secret=True)
    except FileNotFoundError:
        publish_once(path, dump_key(new_key()))
        content = read_file(path, is_secret=True)
    try:
        key = load_key(content)
    except BundleError as error:
        raise StoreError(str(path), str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise StoreError(str(path), "is not a P-256 key")
    return key
