"""TLS contexts from key, leaf and roots: mutual TLS 1.3 between proxies, ALPN `postern/1` then `h2`, no session tickets.

A context can't lose a root or change its leaf safely, so each rotation makes new ones; they are chosen when a connection begins.
"""

import asyncio
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from proxy.contract.engine import (
    PeerLeaf,
    PeerRefusal,
    RefusedLeafError,
    TlsIdentity,
    VerifiedTls,
    WireProtocol,
)

ALPN_OWN = "postern/1"
ALPN_H2 = "h2"
_MAX_KEPT = 64  # contexts for servers outside of the mesh; the system's roots make one of a few MiB


class IdentityMismatchError(Exception):
    """The peer's certificate is valid, but not for the app that was called, or its owner is refused."""

    def __init__(self, detail: str, reason: PeerRefusal = "other") -> None:
        super().__init__(detail)
        self.reason = reason


class TlsContexts:
    """Mutable state: the contexts of the identity in force; replaced whole."""

    def __init__(self) -> None:
        self.identity: TlsIdentity | None = None
        self.server: ssl.SSLContext | None = None
        self.client: ssl.SSLContext | None = None
        self._app: dict[WireProtocol, ssl.SSLContext] = {}
        self._verified: dict[VerifiedTls, ssl.SSLContext] = {}  # of any name

    def put(self, identity: TlsIdentity | None) -> None:
        """Make new contexts. Raises ssl.SSLError and leaves the old ones where the material is unusable."""
        if identity is None:
            self.identity = self.server = self.client = None
            return
        server = _mesh_context(identity, ssl.PROTOCOL_TLS_SERVER)
        client = _mesh_context(identity, ssl.PROTOCOL_TLS_CLIENT)
        self.identity, self.server, self.client = identity, server, client

    def app(self, wire: WireProtocol) -> ssl.SSLContext:
        """TLS to our own app is never verified, minimum 1.2: it is on this host."""
        context = self._app.get(wire)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"] if wire == "http1" else ["h2"])
            self._app[wire] = context
        return context

    def verified(self, tls: VerifiedTls) -> ssl.SSLContext:
        """TLS to a server that has to prove its name. Raises ssl.SSLError where the material is unusable."""
        key = replace(tls, name="")
        context = self._verified.get(key)
        if context is None:
            if len(self._verified) >= _MAX_KEPT:
                self._verified.clear()
            context = self._verified[key] = _verified_context(tls)
        return context


def _verified_context(tls: VerifiedTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # RFC 9525 §2
    context.verify_flags |= (
        ssl.VERIFY_X509_PARTIAL_CHAIN
    )  # a trusted intermediate ends the chain, as in the native engine
    context.set_alpn_protocols(["http/1.1"])
    if tls.roots_pem:
        context.load_verify_locations(cadata=tls.roots_pem.decode("ascii", "replace"))
    if tls.chain_pem:
        with _private_file(tls.chain_pem + b"\n" + tls.key_pem) as path:
            context.load_cert_chain(path)
    return context


def _mesh_context(identity: TlsIdentity, side: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False  # the SPIFFE id is checked instead
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if identity.strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if side is ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # a resumed session would dodge the identity check
    context.set_alpn_protocols([ALPN_OWN, ALPN_H2])
    context.load_verify_locations(cadata=identity.roots_pem.decode("ascii"))
    with _private_file(identity.chain_pem + identity.key_pem) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _private_file(content: bytes) -> Iterator[str]:
    """A path that `ssl` can read and nothing else keeps: an anonymous memory file, or (not Linux) a 0600 file gone at once."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("svid", os.MFD_CLOEXEC)
        try:
            os.write(handle, content)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    handle, name = tempfile.mkstemp(prefix="svid-")
    try:
        os.write(handle, content)
        yield name
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            Path(name).unlink()


def peer_identity(transport: asyncio.BaseTransport, contexts: TlsContexts, *, server: bool) -> PeerLeaf:
    """Whose the other end is, and until when both certificates hold. `server`: whether the other end is the server.

    Raises IdentityMismatchError.
    """
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    leaf = tls.getpeercert(binary_form=True) if tls is not None else None
    if leaf is None or contexts.identity is None:
        raise IdentityMismatchError("the peer presented no certificate", "no-certificate")
    try:
        met = contexts.identity.verify(leaf, server)
    except RefusedLeafError as error:
        raise IdentityMismatchError(str(error), error.reason) from error
    return PeerLeaf(met.spiffe_id, min(met.ends_at, contexts.identity.ends_at))


def check_server(
    transport: asyncio.BaseTransport, expect: frozenset[str], contexts: TlsContexts
) -> tuple[str, float]:
    """Check whom we reached; returns the ALPN it chose, and until when both certificates hold. Raises IdentityMismatchError."""
    met = peer_identity(transport, contexts, server=True)
    if met.spiffe_id not in expect:
        raise IdentityMismatchError(f"expected {' or '.join(sorted(expect))}, got {met.spiffe_id}")
    tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
    alpn = tls.selected_alpn_protocol()
    if alpn is None:
        raise IdentityMismatchError("the peer chose no application protocol (ALPN)")
    return alpn, met.ends_at
