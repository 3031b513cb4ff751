"""Clusters outside of the mesh, of HTTPEndpoints and of URLs that the app calls: pushed once their host is looked up, dropped when idle."""

import ssl
from collections.abc import Callable, Mapping
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

from msgspec.structs import replace

from nameresolution.resolver import AppName
from policies.rules.http_endpoints import ClientTls, HttpEndpoint, Url
from policies.rules.traffic import TargetTraffic
from proxy.contract.addresses import join_address
from proxy.contract.engine import Cluster, Engine, Upstream, VerifiedTls, Via
from proxy.contract.plan import Decision, Hold, Plan
from proxy.control.external_hosts import ExternalHosts, Lookup, forbidden
from proxy.control.traffic import balancing_of, outliers_of
from proxy.deciding.external import endpoint_key, endpoint_of, url_of
from proxy.deciding.outbound_view import OutboundView
from proxy.wire.lookup import look_up
from telemetry.errors import WebProxyError
from telemetry.logs import get_logger
from telemetry.web_proxies import NO_PROXIES, WebProxies, WebProxy

_LOG = get_logger("postern.external")
MAX_URLS = 256


class ExternalClusters:
    """Mutable state: `hosts`, the engine once it is there, and whether it was told that a proxy is this sidecar itself.

    view: the snapshot in force. know: adds a cluster's key to those known there, or takes it out. own_ports: those that we listen on.
    proxies: which HTTP proxy stands before a URL; names of hosts are the proxy's to look up then.
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
        proxies: WebProxies = NO_PROXIES,
    ) -> None:
        self._proxies = proxies
        self._is_self_told = False
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
        self.hosts.use(key, url.host, url.port, is_looked_up=self._way(url) is None)
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

    def push_again(self) -> None:
        """Other traffic rules hold for what is pushed."""
        for key in self.hosts.keys:
            if key in self._view().known:
                self._changed(key)

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

    def _way(self, url: Url) -> WebProxy | str | None:
        """The proxy before a URL, or why it can't be used. One that is this sidecar, as variables for apps name it, is none."""
        try:
            proxy = self._proxies.for_url(
                f"{url.scheme}://{join_address(url.host, url.port)}", is_nested=True
            )
        except WebProxyError as error:
            return str(error)
        if proxy is None or not self._is_self(proxy):
            return proxy
        if not self._is_self_told:
            self._is_self_told = True
            _LOG.warning(
                "HTTP_PROXY or HTTPS_PROXY names this sidecar itself: its own calls go directly",
                proxy=join_address(proxy.host, proxy.port),
            )
        return None

    def _is_self(self, proxy: WebProxy) -> bool:
        if proxy.port not in self._own_ports():
            return False
        try:
            return ip_address(proxy.host).is_loopback or proxy.host == self._own_ip
        except ValueError:
            return proxy.host == "localhost"

    def _via(self, proxy: WebProxy) -> Via:
        """Raises OSError where the system's roots are needed and can't be read."""
        tls = VerifiedTls(name=proxy.host, roots_pem=self._system_roots) if proxy.is_secure else None
        return Via(
            address=join_address(proxy.host, proxy.port), authorization=proxy.authorization.encode(), tls=tls
        )

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
        proxy = self._way(url)
        if isinstance(proxy, str):
            self.hosts.fail(key, proxy)
            return
        try:
            tls = self._tls(key, url) if url.scheme == "https" else None
            via = self._via(proxy) if proxy is not None else None
            view, target = self._view(), self._traffic(key)
            self._know(key, True)  # first: an engine may decide the calls that wait for it at once
            self._engine.set_cluster(
                Cluster(
                    key=key,
                    wire="http1",
                    tls=tls,
                    upstreams=upstreams,
                    who=who,
                    via=via,
                    balancing=balancing_of(target.balancing, AppName(view.app.app_id, view.app.namespace)),
                    outliers=outliers_of(target),
                )
            )
        except (OSError, ValueError) as error:
            self._know(key, is_known)
            self.hosts.fail(key, f"its TLS can't be set up: {error}")
            return
        if not is_known:
            self._invalidate(key)

    def _traffic(self, key: str) -> TargetTraffic:
        view, name = self._view(), endpoint_of(key)
        return view.traffic.default if name is None else view.traffic.for_app(name, view.app.namespace)

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
