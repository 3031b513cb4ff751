"""`spec.authorizers` of AccessPolicies -> who is asked; every fault at once."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from policies.reading import own_schema
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.findings import Findings, Spot
from policies.reading.shown_urls import shown_url
from policies.reading.urls import http_url
from policies.rules.authorizers import AuthorizerKind, AuthorizerTls, ExternalAuthorizer

MAX_AUTHORIZERS = 16  # of a policy
MAX_TIMEOUT_S = 30.0
MAX_CACHE_S = 3_600.0

_AUTHORIZERS: Place = ("spec", "authorizers")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_HOST_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ALWAYS_BY_HTTP: Final = frozenset({"authorization"})  # Envoy's default


def external_authorizers(
    written: Sequence[own_schema.Authorizer], document: Document, findings: Findings
) -> list[ExternalAuthorizer]:
    """Those of one policy. A relative `caFile` lies where the document is."""
    if len(written) > MAX_AUTHORIZERS:
        findings.fault(document, _AUTHORIZERS, f"has {len(written)} (expected at most {MAX_AUTHORIZERS})")
        return []
    made: dict[str, ExternalAuthorizer] = {}
    for number, one in enumerate(written):
        reader = _Reader(document, (*_AUTHORIZERS, number), findings)
        if _NAME.fullmatch(one.name) is None:
            reader.spot.fault(
                "name", f"`{one.name}` can't be a name (expected letters, digits, '.', '_' or '-')"
            )
        elif one.name in made:
            reader.spot.fault("name", f"{one.name} is named again")
        made[one.name] = reader.read(one)
    return list(made.values())


class _Reader:
    """Of one entry."""

    def __init__(self, document: Document, place: Place, findings: Findings) -> None:
        self._document = document
        self._place = place
        self._findings = findings
        self.spot = Spot(document, findings, place)

    def read(self, one: own_schema.Authorizer) -> ExternalAuthorizer:
        named: dict[AuthorizerKind, str] = {
            kind: getattr(one, kind) for kind in get_args(AuthorizerKind) if getattr(one, kind)
        }
        if len(named) != 1:
            said = f"names {' and '.join(named)}" if named else "names nobody to ask"
            self.spot.fault("name", f"{said} (expected one of grpc, http and opa)")
        kind, target = next(iter(named.items()), ("grpc", ""))
        host, is_tls = self._host(kind, target)
        if one.tls is not None and kind != "grpc" and not is_tls:
            self.spot.fault("tls", "is for https (expected such a URL)")
        is_tls = is_tls or one.tls is not None
        if target and host not in _LOOPBACK and not is_tls:
            text = f"`{shown_url(target)}` is asked in plaintext: whoever is on the way can read what is told, and change the answer"
            self.spot.warn(kind, text)
        if one.fail_open:
            self.spot.warn("failOpen", "lets calls by while it gives no answer")
        if one.to_app and kind != "http":
            self.spot.fault(
                "toApp", f"is for http alone: an answer by {kind} says itself what the app is given"
            )
        return ExternalAuthorizer(
            name=one.name,
            kind=kind,
            target=target,
            timeout_s=self._length("timeout", one.timeout, MAX_TIMEOUT_S) or 0.25,
            is_fail_open=one.fail_open,
            headers=self._told(one, kind),
            to_app=self._fields("toApp", one.to_app),
            cache_s=self._cache(one, kind),
            tls=self._tls(one.tls) if is_tls else None,
        )

    def _host(self, kind: AuthorizerKind, target: str) -> tuple[str, bool]:
        """The host, and whether it is spoken to by https."""
        if kind == "grpc":
            found = _HOST_PORT.fullmatch(target)
            if target and (found is None or not 0 < int(found[1]) <= 65_535):
                self.spot.fault(kind, f"`{shown_url(target)}` is not an address (expected HOST:PORT)")
            return target.rpartition(":")[0].strip("[]"), False
        parts = http_url(target)
        if parts is None or parts.query:
            self.spot.fault(
                kind, f"`{shown_url(target)}` is not a URL (expected http://HOST:PORT/PATH, or https)"
            )
            return "", True
        return parts.hostname or "", parts.scheme == "https"

    def _told(self, one: own_schema.Authorizer, kind: AuthorizerKind) -> frozenset[str] | None:
        if one.headers is None:
            return _ALWAYS_BY_HTTP if kind == "http" else None
        told = self._fields("headers", one.headers)
        return told | _ALWAYS_BY_HTTP if kind == "http" else told

    def _fields(self, key: str, names: Sequence[str]) -> frozenset[str]:
        for number, name in enumerate(names):
            if _FIELD.fullmatch(name) is None or name == "*":
                self.spot.fault((key, number), f"`{name}` is not the name of a header")
        return frozenset(name.lower() for name in names)

    def _cache(self, one: own_schema.Authorizer, kind: AuthorizerKind) -> float:
        length_s = self._length("cache", one.cache, MAX_CACHE_S) if one.cache else 0.0
        if length_s and one.headers is None and kind != "http":
            self.spot.warn(
                "cache", "serves little while all headers are told, of which some differ (expected headers)"
            )
        return length_s

    def _length(self, key: str, text: str, most_s: float) -> float:
        found = self._findings.duration(self._document, (*self._place, key), text)
        if found is None or 0.001 <= found <= most_s:
            return found or 0.0
        self.spot.fault(key, f"`{text}` is out of range (expected 1ms to {most_s:g}s)")
        return 0.0

    def _tls(self, tls: own_schema.AuthorizerTls | None) -> AuthorizerTls:
        if tls is None:
            return AuthorizerTls()
        file = str(Path(self._document.path).parent / tls.ca_file) if tls.ca_file else ""
        if file and not Path(file).is_file():
            self.spot.fault(("tls", "caFile"), f"file {file} does not exist")
        return AuthorizerTls(ca_file=file, server_name=tls.server_name)
