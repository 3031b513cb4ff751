"""Certificates for the conformance suite, made by sentry's own code: roots, workload leaves, and bad ones."""

import ssl
import tempfile
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from proxy.contract.engine import PeerLeaf, TlsIdentity
from sentry.authority import Holdings, generate
from sentry.issuer import dump_key, new_key
from sentry.spiffe import SpiffeId, judge_leaf
from sentry.template import LeafTemplate

DOMAIN = "mesh.test"
NAMESPACE = "default"


def spiffe(app: str) -> str:
    """The id of an app of this mesh."""
    return str(SpiffeId(DOMAIN, NAMESPACE, app))


def verify(der: bytes, as_server: bool) -> PeerLeaf:
    """As the control plane gives it to an engine."""
    leaf = judge_leaf(der, as_server=as_server)
    return PeerLeaf(str(leaf.spiffe_id), leaf.ends_at)


class Mint:
    """One root, and leaves under it."""

    def __init__(self) -> None:
        self._holdings: Holdings = generate(DOMAIN, NAMESPACE, datetime.now(UTC))

    @property
    def roots_pem(self) -> bytes:
        """The trust anchors."""
        return self._holdings.bundle.pem

    def identity(
        self,
        app: str,
        *,
        life: timedelta = timedelta(hours=1),
        roots: bytes = b"",
        namespace: str = NAMESPACE,
    ) -> TlsIdentity:
        """A workload's identity. A negative `life` makes one that has ended. `roots`: further anchors to trust."""
        now = datetime.now(UTC).replace(microsecond=0)
        key = new_key()
        leaf = self._holdings.issuer.sign(
            LeafTemplate(
                spiffe_id=SpiffeId(DOMAIN, namespace, app),
                public_key=key.public_key(),
                not_before=min(now, now + life) - timedelta(minutes=5),
                not_after=now + life,
            )
        )
        return TlsIdentity(
            chain_pem=leaf.public_bytes(Encoding.PEM) + self._holdings.issuer.chain_pem,
            key_pem=dump_key(key),
            roots_pem=self.roots_pem + roots,
            ends_at=(now + life).timestamp(),
            verify=verify,
        )

    def client_context(
        self,
        app: str | None,
        *,
        alpn: tuple[str, ...] = ("postern/1", "h2"),
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        life: timedelta = timedelta(hours=1),
        namespace: str = NAMESPACE,
    ) -> ssl.SSLContext:
        """A hand-made client; `app` None shows no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.roots_pem.decode())
        context.maximum_version = newest
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if app is not None:
            _load(context, self.identity(app, life=life, namespace=namespace))
        return context

    def server_context(
        self,
        app: str,
        *,
        alpn: tuple[str, ...] = ("postern/1", "h2"),
        life: timedelta = timedelta(hours=1),
    ) -> ssl.SSLContext:
        """A hand-made server that asks for no client certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        _load(context, self.identity(app, life=life))
        return context


def _load(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(identity.chain_pem + identity.key_pem)
        file.flush()
        context.load_cert_chain(file.name)
