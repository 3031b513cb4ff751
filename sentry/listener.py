"""Sentry's own leaf on its own listener: renewed at half of its lifetime, chosen per handshake."""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, cast

from sentry.authority import Authority
from sentry.issuer import dump_key

if TYPE_CHECKING:
    import grpc


class OwnLeaf:
    """Keeps sentry's server certificate young.

    State (`_renew_at`, `_issuer_pem`) is guarded by `_lock`: gRPC asks from its own threads, before each handshake.
    """

    def __init__(self, authority: Authority, clock: Callable[[], datetime]) -> None:
        """Signs nothing yet."""
        self._authority = authority
        self._clock = clock
        self._lock = threading.Lock()
        self._renew_at: datetime | None = None
        self._issuer_pem = b""

    def is_due(self) -> bool:
        """Whether the next handshake needs a new leaf: half of its life is over, or the issuer was replaced."""
        is_old = self._renew_at is None or self._clock() >= self._renew_at
        return is_old or self._issuer_pem != self._authority.issuer.chain_pem

    def renew(self) -> tuple[bytes, bytes]:
        """A new key and chain in PEM. Raises SigningError."""
        issuer_pem = self._authority.issuer.chain_pem
        signed, key = self._authority.sign_own()
        now = self._clock()
        self._renew_at = now + (signed.leaf.not_valid_after_utc - now) / 2
        self._issuer_pem = issuer_pem
        return dump_key(key), signed.chain_pem

    def credentials(self) -> "grpc.ServerCredentials":
        """TLS credentials that ask this object before each handshake. Raises SigningError."""
        import grpc  # noqa: PLC0415 -- 100 ms; only the server needs it

        def configuration() -> "grpc.ServerCertificateConfiguration":
            key_pem, chain_pem = self.renew()
            return grpc.ssl_server_certificate_configuration([(key_pem, chain_pem)])

        def fetch() -> "grpc.ServerCertificateConfiguration | None":
            with self._lock:
                return configuration() if self.is_due() else None

        # The stubs leave out that None means "keep the certificate".
        fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)
        return grpc.dynamic_ssl_server_credentials(
            configuration(), fetcher, require_client_authentication=False
        )
