"""Clusters outside of the mesh, of HTTPEndpoints and of URLs that the app calls: pushed once their host is looked up, dropped when idle."""

import ssl
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from time import monotonic

from msgspec.structs import replace

from policies.rules.http_endpoints import ClientTls, HttpEndpoint, Url
from proxy.contract.addresses import join_address
from proxy.contract.engine import Cluster, Engine, Upstream, VerifiedTls
from proxy.contract.plan import Decision, Hold, Plan
from proxy.control.external_hosts import ExternalHosts, Lookup, forbidden, look_up
from proxy.deciding.external import endpoint_key, endpoint_of, url_of
from proxy.deciding.outbound_view import OutboundView

MAX_URLS = 256


class ExternalClusters:
    """Mutable state: `hosts`, and the engine once it is there.

    view: the snapshot in force. know: adds a cluster's key to those known there, or takes it out. own_ports: those that we listen on.
    """

    def __init__(
        self,
        view: Callable[[], OutboundView],
        know: Callable[[str, bool], None],
        *,
        own_ports: Callable[[], frozenset[int]],
        own_ip: str,
        lookup: Lookup = look_up,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._view = view
        self._know = know
        self._own_ports = own_ports
        self._own_ip = own_ip
        self._engine: Engine | None = None
        self.hosts = ExternalHosts(
            lookup,
            refused=self._refused,
            changed=self._changed,
            expired=self._invalidate,
            forgotten=self._forgotten,
            now=now,
        )

    def attach(self, engine: Engine) -> None:
        """Push there."""
        self._engine = engine

    def decided(self, decision: Decision) -> Decision | None:
        """Of a call that leaves the mesh: see to its host. A Hold comes back that ends at once where no news will come; else None."""
        key = decision.key if isinstance(decision, Hold) else ""
        if isinstance(decision, Plan):
            key = decision.routes[0].cluster
        url = self._url(key)
        if url is None:
            return None
        self.hosts.use(key, url.host, url.port)
        self._evict()
        if isinstance(decision, Hold) and self.hosts.has_failed(key):
            return replace(decision, for_s=0.0)
        return None

    def policy_changed(self, before: Mapping[str, HttpEndpoint]) -> None:
        """Let go of endpoints that lead elsewhere now, or are reached otherwise."""
        now = self._view().http_endpoints
        for name, old in before.items():
            new = now.get(name)
            if new is None or (new.url.origin, new.tls) != (old.url.origin, old.tls):
                self.hosts.forget(endpoint_key(name))

    def explain(self, key: str) -> str:
        """Why a cluster has no addresses, for error messages."""
        return self.hosts.error(key) if self._url(key) is not None else ""

    def _url(self, key: str) -> Url | None:
        name = endpoint_of(key)
        if name is None:
            return url_of(key)
        endpoint = self._view().http_endpoints.get(name)
        return endpoint.url if endpoint is not None else None

    def _evict(self) -> None:
        urls = [key for key in self.hosts.keys if endpoint_of(key) is None]
        for key in urls[: max(0, len(urls) - MAX_URLS)]:
            self.hosts.forget(key)

    def _refused(self, key: str, ip: str, port: int) -> str | None:
        """Why an address may not be called; one that a resource or a flag spells out may."""
        url = self._url(key)
        own_ports = self._own_ports()
        is_meant = url is not None and url.host == ip and (endpoint_of(key) or self._view().egress.names(url))
        if is_meant and port not in own_ports:
            return None
        return forbidden(ip, port, own_ports=own_ports, own_ip=self._own_ip)

    def _changed(self, key: str) -> None:
        assert self._engine is not None
        addresses, url = self.hosts.addresses(key), self._url(key)
        is_known = key in self._view().known
        if not addresses or url is None:
            if is_known:
                self._drop(key)
            self._engine.wake(key)
            return
        upstreams = tuple(Upstream(address=address) for address in addresses)
        who = f"the server at {join_address(url.host, url.port)}"
        try:
            tls = self._tls(key, url) if url.scheme == "https" else None
            self._engine.set_cluster(Cluster(key=key, wire="http1", tls=tls, upstreams=upstreams, who=who))
        except (OSError, ValueError) as error:
            self.hosts.fail(key, f"its TLS can't be set up: {error}")
            return
        if not is_known:
            self._know(key, True)
            self._invalidate(key)

    def _tls(self, key: str, url: Url) -> VerifiedTls:
        """Raises OSError where the system's roots are needed and can't be read."""
        name = endpoint_of(key)
        tls = self._view().http_endpoints[name].tls if name is not None else ClientTls()
        return VerifiedTls(
            name=url.host.removesuffix("."),
            roots_pem=tls.root_ca or self._system_roots,
            chain_pem=tls.certificate,
            key_pem=tls.private_key,
        )

    @cached_property
    def _system_roots(self) -> bytes:
        return system_roots()

    def _forgotten(self, key: str) -> None:
        if key in self._view().known:
            self._drop(key)

    def _drop(self, key: str) -> None:
        assert self._engine is not None
        self._know(key, False)
        self._invalidate(key)
        self._engine.drop_cluster(key)

    def _invalidate(self, key: str) -> None:
        assert self._engine is not None
        self._engine.invalidate(f"name:{key}")


def system_roots() -> bytes:
    """The roots that this system trusts, as PEM: OpenSSL's file, else its folder. Blocks on the disk, for a megabyte at most.

    Raises OSError where there are none or they can't be read.
    """
    where = ssl.get_default_verify_paths()
    file: str | None = where.cafile
    folder: str | None = where.capath
    if file is not None:
        return Path(file).read_bytes()
    # The names that OpenSSL looks for: a hash of the subject, and a number.
    files = sorted(Path(folder).glob("*.[0-9]")) if folder is not None else []
    if not files:
        raise FileNotFoundError(
            "this system has no root certificates: install ca-certificates, or set SSL_CERT_FILE"
        )
    return b"\n".join(path.read_bytes() for path in files if path.is_file())
