"""Asks over HTTP/1.1: in the way of Envoy's HTTP authorizers, by the data API of OPA, and for Dapr's middleware with a policy in Rego.

Connections are kept between questions, and a question that meets the end of one is asked again. HTTP proxies of the environment are not
used: an authorizer belongs to this mesh.
"""

import asyncio
import hashlib
import json
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from policies.rules.authorizers import ExternalAuthorizer
from policies.rules.path_readings import readings
from proxy.contract.addresses import join_address
from proxy.contract.plan import Edit, Op
from proxy.control.authorizing.question import Party, Question
from proxy.control.authorizing.verdicts import (
    MAX_BODY_BYTES,
    MAX_FIELD_BYTES,
    Allowed,
    AuthorizerError,
    Denied,
    Ignored,
    Sieve,
    Verdict,
    withheld,
)
from proxy.wire.http_client import LocalHttpError, LocalResponse
from proxy.wire.kept_connections import KeptConnections

MAX_CONNECTIONS: Final = 100  # to one authorizer: each carries one question at a time, further ones wait
_PORTS: Final = {"http": 80, "https": 443}
_MAX_ANSWER_BYTES: Final = MAX_BODY_BYTES + MAX_FIELD_BYTES
_JSON: Final = ("content-type", "application/json")
_PACKAGE: Final = re.compile(r"^[ \t]*package[ \t]+http[ \t]*(?:#.*)?$", re.MULTILINE)

Json = Mapping[str, Any]


class _Server:
    """Where a URL leads. Mutable state: the TLS context, and the moment of the roots' file that it was made with."""

    def __init__(self, spec: ExternalAuthorizer) -> None:
        self._parts = urlsplit(spec.target)
        host = self._parts.hostname or ""
        address = join_address(host, self._parts.port or _PORTS[self._parts.scheme])
        self.authority = self._parts.netloc
        self.path = self._parts.path.rstrip("/")
        self._spec = spec
        self._tls: tuple[ssl.SSLContext, float] | None = None
        name = (spec.tls.server_name if spec.tls is not None else "") or host
        self._connections = KeptConnections(address, server_name=name, at_most=MAX_CONNECTIONS)

    async def send(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b""
    ) -> LocalResponse:
        """The answer, whatever its status. Raises: AuthorizerError."""
        try:
            return await self._connections.request(
                method,
                target,
                headers=[(name.encode(), value.encode()) for name, value in headers],
                body=body,
                timeout_s=self._spec.timeout_s,
                tls=None if self._spec.tls is None else await self._context(self._spec.tls.ca_file),
                limit_bytes=_MAX_ANSWER_BYTES,
            )
        except LocalHttpError as error:
            raise AuthorizerError(str(error)) from error
        except TimeoutError as error:
            raise AuthorizerError(f"no answer within {self._spec.timeout_s:g} s", "timeout") from error

    async def close(self) -> None:
        """Its connections end."""
        self._connections.close()

    async def _context(self, ca_file: str) -> ssl.SSLContext:
        """Roots in a file are read again when it changes."""
        try:
            at = (await asyncio.to_thread(Path(ca_file).stat)).st_mtime if ca_file else 0.0
            if self._tls is None or self._tls[1] != at:
                made = await asyncio.to_thread(ssl.create_default_context, cafile=ca_file or None)
                made.minimum_version = ssl.TLSVersion.TLSv1_2
                self._tls = (made, at)
        except OSError as error:  # ssl.SSLError is one
            raise AuthorizerError(f"{ca_file}: {error.strerror or error}") from error
        return self._tls[0]


class HttpClient:
    """Sends the head of the call, as Envoy does: its verb, its Host, its path after that of the URL, and some of its headers."""

    def __init__(self, spec: ExternalAuthorizer, ignored: Ignored) -> None:
        self._spec = spec
        self._ignored = ignored
        self._server = _Server(spec)

    async def ask(self, asked: Question) -> Verdict:
        """What it says. Raises: AuthorizerError."""
        target = asked.target if asked.target.startswith("/") else "/"
        if self._server.path and leads_out(asked.path):
            text = b"the call's path leads out of the path below which the authorizer is asked"
            return Denied(403, ((b"content-type", b"text/plain"),), text)
        headers = [("host", asked.host or self._server.authority), *asked.headers]
        if asked.caller.spiffe_id:
            headers.append(("x-forwarded-client-cert", _client_cert(asked.callee, asked.caller)))
        answer = await self._server.send(asked.method, self._server.path + target, headers)
        sieve = Sieve(self._ignored)
        if answer.status == 200:
            request: list[Edit] = []
            seen: set[str] = set()
            for field, value in answer.headers:
                name = field.decode("latin-1")
                if name in self._spec.to_app:
                    request.extend(sieve.request(Op.ADD if name in seen else Op.SET, field, value))
                    seen.add(name)
            return Allowed((*request, *withheld(self._spec.to_app - seen)))
        if answer.status >= 500:
            raise AuthorizerError(f"it answered with status {answer.status}")
        return sieve.refusal(answer.status, answer.headers, answer.body)

    async def close(self) -> None:
        """See Client."""
        await self._server.close()


def leads_out(path: str) -> bool:
    """Whether a server may read a path, put behind that of a URL, as one outside of it: `/check/..%2fhealth` as `/health`."""
    found = readings(path)
    return found is None or any(_climbs(one.split("/")[1:]) for one in found)


def _climbs(segments: Iterable[str]) -> bool:
    depth = 0
    for segment in segments:
        depth += {"..": -1, ".": 0, "": 0}.get(segment, 1)
        if depth < 0:
            return True
    return False


def _client_cert(callee: Party, caller: Party) -> str:
    """As Envoy's field `x-forwarded-client-cert` has it."""
    by = f"By={callee.spiffe_id};" if callee.spiffe_id else ""
    return f"{by}URI={caller.spiffe_id}"


class OpaClient:
    """Asks for the value of a rule, with the input that OPA's Envoy plugin has."""

    def __init__(self, spec: ExternalAuthorizer, ignored: Ignored) -> None:
        self._ignored = ignored
        self._server = _Server(spec)

    async def ask(self, asked: Question) -> Verdict:
        """What it says. Raises: AuthorizerError."""
        found = await _value(self._server, self._server.path, envoy_input(asked))
        if isinstance(found, dict):
            return self._read(found)
        return _by_truth(found, 403, Sieve(self._ignored))

    def _read(self, found: Json) -> Verdict:
        sieve, allowed = Sieve(self._ignored), found.get("allowed", found.get("allow"))
        if allowed is False:
            status, body = found.get("http_status"), found.get("body")
            fields = _fields(found, "headers")
            text = body.encode() if isinstance(body, str) else b""
            return sieve.refusal(status if isinstance(status, int) else 403, fields, text)
        if allowed is not True:
            raise AuthorizerError("its answer has no `allowed` that is true or false")
        removed = found.get("request_headers_to_remove", [])
        request = [
            edit for name, value in _fields(found, "headers") for edit in sieve.request(Op.SET, name, value)
        ]
        for name in removed if isinstance(removed, list) else ():
            request.extend(sieve.request(Op.REMOVE, str(name).encode()))
        added = _fields(found, "response_headers_to_add")
        reply = [edit for name, value in added for edit in sieve.reply(Op.ADD, name, value)]
        return Allowed(tuple(request), tuple(reply))

    async def close(self) -> None:
        """See Client."""
        await self._server.close()


class DaprOpaClient:
    """Dapr's `middleware.http.opa` by an OPA server: its policy is put there, and asked with the input that Dapr gives it.

    It stands there in a package of its own, named by its text, so that policies of several handlers don't meet, and equal ones are one.
    """

    def __init__(self, spec: ExternalAuthorizer, ignored: Ignored) -> None:
        self._spec = spec
        self._ignored = ignored
        self._server = _Server(spec)
        package = f"postern_{hashlib.sha256(spec.rego.encode()).hexdigest()[:16]}"
        self._rego = _PACKAGE.sub(f"package {package}", spec.rego, count=1).encode()
        self._policy, self._rule = f"/v1/policies/{package}", f"/v1/data/{package}/allow"

    async def ask(self, asked: Question) -> Verdict:
        """What it says; where the server does not know the policy, or has forgotten it, it is told. Raises: AuthorizerError."""
        given = {"request": dapr_input(asked)}
        base = self._server.path
        try:
            found = await _value(self._server, base + self._rule, given)
        except _UndefinedError:
            answer = await self._server.send(
                "PUT",
                base + self._policy,
                [("host", self._server.authority), ("content-type", "text/plain")],
                self._rego,
            )
            if answer.status != 200:
                said = " ".join(answer.body[:500].decode("utf-8", "replace").split())
                raise AuthorizerError(f"it rejected the policy with status {answer.status}: {said}") from None
            found = await _value(self._server, base + self._rule, given)
        sieve, status = Sieve(self._ignored), self._spec.default_status
        if not isinstance(found, dict):
            return _by_truth(found, status, sieve)
        fields = _fields(found, "additional_headers")
        if found.get("allow") is True:
            return Allowed(
                tuple(edit for name, value in fields for edit in sieve.request(Op.SET, name, value))
            )
        said_status = found.get("status_code")
        return sieve.refusal(said_status if isinstance(said_status, int) else status, fields, b"")

    async def close(self) -> None:
        """See Client."""
        await self._server.close()


class _UndefinedError(AuthorizerError):
    """The rule has no value."""


async def _value(server: _Server, target: str, given: Json) -> object:
    """The value of a rule by OPA's data API. Raises: AuthorizerError; _UndefinedError."""
    headers = [("host", server.authority), _JSON]
    answer = await server.send("POST", target, headers, json.dumps({"input": given}).encode())
    if answer.status != 200:
        said = " ".join(answer.body[:300].decode("utf-8", "replace").split())
        raise AuthorizerError(f"it answered with status {answer.status}: {said}")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise AuthorizerError("its answer is not JSON") from error
    if not isinstance(found, dict) or "result" not in found:
        raise _UndefinedError(f"the rule {target} has no value there")
    return found["result"]


def _by_truth(found: object, status: int, sieve: Sieve) -> Verdict:
    if not isinstance(found, bool):
        raise AuthorizerError("the rule's value is neither true nor false, nor an object")
    return Allowed() if found else sieve.refusal(status, (), b"")


def _fields(found: Json, key: str) -> list[tuple[bytes, bytes]]:
    """Fields of an answer: an object, whose values may be lists. Raises: AuthorizerError."""
    given = found.get(key) or {}
    if not isinstance(given, dict):
        raise AuthorizerError(f"its `{key}` is not an object")
    made: list[tuple[bytes, bytes]] = []
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, str | int | float):
                raise AuthorizerError(f"its `{key}` has a value that is not a string")
            made.append((name.encode(), str(value).encode()))
    return made


def envoy_input(asked: Question) -> Json:
    """The input that OPA's Envoy plugin makes of a CheckRequest."""

    def peer(party: Party) -> Json:
        address = {"address": {"socketAddress": {"address": party.address}}} if party.address else {}
        return {**address, "principal": party.spiffe_id, "service": party.name}

    http = {
        "method": asked.method,
        "path": asked.target,
        "host": asked.host,
        "scheme": "http",
        "protocol": asked.protocol,
        "headers": asked.joined(),
    }
    return {
        "attributes": {
            "source": peer(asked.caller),
            "destination": peer(asked.callee),
            "request": {"http": http},
        },
        "parsed_path": [unquote(part) for part in asked.path.strip("/").split("/")],
        "parsed_query": parse_qs(asked.query, keep_blank_values=True),
    }


def dapr_input(asked: Question) -> Json:
    """The request as Dapr's middleware has it: names of headers as Go writes them."""
    path = unquote(asked.path)
    headers: dict[str, str] = {}
    for name, value in asked.headers:
        known = "-".join(part.capitalize() for part in name.split("-"))
        headers[known] = f"{headers[known]}, {value}" if known in headers else value
    return {
        "method": asked.method,
        "path": path,
        "path_parts": path.strip("/").split("/"),
        "raw_query": asked.query,
        "query": parse_qs(asked.query, keep_blank_values=True),
        "headers": headers,
        "scheme": "",
        "body": "",
    }
