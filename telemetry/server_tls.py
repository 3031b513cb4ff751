"""TLS of a port for scrapers, from files that are read again once they have changed, without a restart."""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

Stamp = tuple[tuple[int, int, int], ...]


class ServerTls:
    """A server's TLS, whose certificate is that in the files at the time of a handshake.

    failed: told why newer files can't be used; the old ones stay in force. Mutable state: the context in force, and the files that were
    last tried.
    """

    def __init__(self, certificate: Path, key: Path, failed: Callable[[Exception], None]) -> None:
        """Raises: OSError, ValueError for files that can't be used."""
        self._files = (certificate, key)
        self._failed = failed
        self._tried = stamp(self._files)
        self._current = self.context = self._made()
        self.context.sni_callback = self._begin

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files, password=_no_password)
        return context

    def _begin(self, tls: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        """Called in each handshake, whether or not the client names a server."""
        try:
            found = stamp(self._files)
            if found != self._tried:
                self._tried = found
                self._current = self._made()
        except (OSError, ValueError) as error:
            self._failed(error)
        tls.context = self._current


def _no_password() -> str:
    raise ValueError("the key has a password, expected one without")


def stamp(files: Sequence[Path]) -> Stamp:
    """What changes with the files, also where a link leads elsewhere now. Raises: OSError."""
    found = (file.stat() for file in files)
    return tuple((facts.st_ino, facts.st_mtime_ns, facts.st_size) for facts in found)
