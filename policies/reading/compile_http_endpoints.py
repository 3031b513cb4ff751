"""HTTPEndpoint documents -> HttpEndpoints by name; every fault at once."""

import re
from collections.abc import Mapping, Sequence

from policies.reading import schema
from policies.reading.construct import Place
from policies.reading.documents import Document
from policies.reading.effects import HTTP_ENDPOINT, warn_of_nothing
from policies.reading.findings import Findings, Spot
from policies.reading.shown_urls import shown_url
from policies.reading.variables import NO_SECRETS, read_variable
from policies.rules.http_endpoints import ClientTls, HttpEndpoint, Url, UrlError, parse_url

_APP_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Those that say how a message is framed or forwarded, and whom it is for (RFC 9110 §7.6.1, §7.2).
_NOT_SET = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "trailer"),
        *("content-length", "host", "expect", "proxy-authorization", "proxy-authenticate"),
    }
)
_CLIENT_TLS: Place = ("spec", "clientTLS")


def compile_http_endpoints(
    documents: Sequence[tuple[Document, schema.HttpEndpoint]],
    own_app_id: str,
    env: Mapping[str, str],
    findings: Findings,
) -> dict[str, HttpEndpoint]:
    """The endpoints of documents in load order. Those scoped to other apps are checked and left out."""
    made: dict[str, HttpEndpoint] = {}
    for document, resource in documents:
        warn_of_nothing(document, HTTP_ENDPOINT, findings)
        endpoint = _Reader(document, env, findings).endpoint(resource)
        if endpoint is None or (resource.scopes and own_app_id not in resource.scopes):
            continue
        if endpoint.name in made:
            problem = f"a second HTTPEndpoint is named {endpoint.name} (expected one of a name)"
            findings.fault(document, ("metadata", "name"), problem, is_lenient=True)
        made[endpoint.name] = endpoint
    return made


class _Reader:
    """Reads one document."""

    def __init__(self, document: Document, env: Mapping[str, str], findings: Findings) -> None:
        self._document = document
        self._env = env
        self._spot = Spot(document, findings)

    def endpoint(self, resource: schema.HttpEndpoint) -> HttpEndpoint | None:
        """None where it can't be used; then there is a fault."""
        name = resource.metadata.name
        if _APP_ID.fullmatch(name) is None:
            said = f"`{name}` can't be called" if name else "is missing"
            problem = f"{said} (expected 1 to 64 letters, digits, '-' or '_', as in an app-id)"
            self._spot.fault(("metadata", "name"), problem)
            return None
        url = self._url(resource.spec.base_url)
        headers = self._headers(resource.spec.headers)
        tls = self._tls(resource.spec.client_tls)
        if url is None:
            return None
        if url.scheme == "http" and self._document.has(_CLIENT_TLS):
            self._spot.fault(_CLIENT_TLS, "is for https, and baseUrl is http", is_lenient=True)
        return HttpEndpoint(name=name, url=url, headers=headers, tls=tls)

    def _url(self, text: str) -> Url | None:
        try:
            return parse_url(text)
        except UrlError as error:
            problem = f"`{shown_url(text)}` can't be used: {error} (expected one such as https://api.example.com/v1)"
            self._spot.fault(("spec", "baseUrl"), problem)
            return None

    def _headers(self, headers: Sequence[schema.EndpointHeader]) -> tuple[tuple[bytes, bytes], ...]:
        made: list[tuple[bytes, bytes]] = []
        for number, header in enumerate(headers):
            place: Place = ("spec", "headers", number)
            name = header.name.lower()
            if _FIELD.fullmatch(name) is None:
                problem = f"`{header.name}` is not a header's name (expected letters, digits and dashes)"
                self._spot.fault((*place, "name"), problem)
            elif name in _NOT_SET or name.startswith(("dapr-", "postern-")):
                problem = f"{header.name} is not for an endpoint to set (expected another header)"
                self._spot.fault((*place, "name"), problem, is_lenient=True)
            else:
                value = self._text(place, header.value, header.env_ref, header.secret_key_ref).strip(" \t")
                if _BAD_VALUE.search(value) is not None:
                    self._spot.fault(
                        (*place, "value"), "holds control characters (expected one line of text)"
                    )
                else:
                    made.append((name.encode(), value.encode()))
        return tuple(made)

    def _tls(self, tls: schema.ClientTls) -> ClientTls:
        if tls.renegotiation not in ("", "Never"):
            place: Place = (*_CLIENT_TLS, "renegotiation")
            self._spot.warn(place, "is taken as Never: TLS is not renegotiated")
        made = ClientTls(
            root_ca=self._pem("rootCA", tls.root_ca),
            certificate=self._pem("certificate", tls.certificate),
            private_key=self._pem("privateKey", tls.private_key),
        )
        if bool(made.certificate) != bool(made.private_key):
            has, lacks = ("certificate", "privateKey")[:: 1 if made.certificate else -1]
            self._spot.fault(_CLIENT_TLS, f"has a {has} without a {lacks} (expected both, or neither)")
        elif made != ClientTls():
            self._check(made)
        return made

    def _check(self, tls: ClientTls) -> None:
        from policies.reading.pem import fault_of_certificates, fault_of_key  # noqa: PLC0415 - seldom needed

        problems = {
            name: fault_of_certificates(pem)
            for name, pem in (("rootCA", tls.root_ca), ("certificate", tls.certificate))
            if pem
        }
        if tls.private_key and problems["certificate"] is None:
            problems["privateKey"] = fault_of_key(tls.private_key, tls.certificate)
        for name, problem in problems.items():
            if problem is not None:
                self._spot.fault((*_CLIENT_TLS, name), problem)

    def _pem(self, name: str, part: schema.TlsPart) -> bytes:
        return self._text((*_CLIENT_TLS, name), part.value, part.env_ref, part.secret_key_ref).encode()

    def _text(self, place: Place, value: str, env_ref: str, secret: object) -> str:
        """The value that is written, or the environment's."""
        if secret is not None:
            self._spot.fault((*place, "secretKeyRef"), NO_SECRETS)
            return ""
        if not env_ref or value:
            return value
        found, problem = read_variable(env_ref, self._env, kind="HTTPEndpoints")
        if problem is not None:
            self._spot.fault((*place, "envRef"), problem)
        return found
