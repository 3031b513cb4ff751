"""The four things that are asked of a Consul agent over its HTTP API.

Sources: https://developer.hashicorp.com/consul/api-docs/agent/service, …/api-docs/health, …/api-docs/features/blocking
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct, field

from nameresolution.consul.registration import Registration, service_id
from nameresolution.consul.settings import AgentSettings, Pairs
from nameresolution.errors import ConsulError

_ANSWER_S = 5.0
_INDEX_DIGITS = 20  # of 64 bits
_MAX_BYTES = 8 << 20  # some ten thousand instances of one app


class HttpAnswer(Protocol):
    """A whole response."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields, their names in lower case."""
        ...

    @property
    def body(self) -> bytes:
        """The body."""
        ...


class HttpRequest(Protocol):
    """One call over HTTP/1.1. Raises OSError, TimeoutError, ValueError."""

    async def __call__(
        self,
        address: str,
        method: str,
        target: str,
        *,
        headers: Iterable[tuple[str | bytes, str | bytes]] = (),
        body: bytes = b"",
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        limit_bytes: int = ...,
    ) -> HttpAnswer:
        """Send it, read the answer."""
        ...


class Node(Struct, rename="pascal"):
    """Where an agent runs."""

    address: str = ""


class Weights(Struct, rename="pascal"):
    """How much of the calls an instance takes."""

    passing: int = 1


class Service(Struct, rename="pascal"):
    """An instance, as it was registered."""

    id: str = field(name="ID", default="")
    address: str = ""
    meta: dict[str, str] | None = None
    weights: Weights | None = None


class Healthy(Struct, rename="pascal"):
    """An instance whose checks pass."""

    node: Node
    service: Service


class Answer(Struct):
    """All healthy instances of a service, and the index to wait beyond."""

    instances: list[Healthy]
    index: int


class ConsulAgent:
    """Asks one agent; keeps no state. Every method raises ConsulError."""

    def __init__(self, settings: AgentSettings, request: HttpRequest) -> None:
        self._settings = settings
        self._request = request

    @property
    def where(self) -> str:
        """The agent's address."""
        return self._settings.address

    async def register(self, service: Registration) -> None:
        """Make a service known, in place of one with its id: a check of before would keep its status, whatever is registered."""
        await self.deregister(service_id(service))
        await self._ask("PUT", "/v1/agent/service/register", body=service)

    async def deregister(self, service: str) -> None:
        """Forget a service, by its id."""
        await self._ask(
            "PUT", f"/v1/agent/service/deregister/{quote(service, safe='')}", missing_is_fine=True
        )

    async def is_registered(self, service: str) -> bool:
        """Whether the agent knows a service of this id."""
        target = f"/v1/agent/service/{quote(service, safe='')}"
        return (await self._ask("GET", target, missing_is_fine=True)).status != 404

    async def healthy(self, service: str, index: int, wait_s: float, query: Pairs, headers: Pairs) -> Answer:
        """The instances whose checks pass, at once with an index of 0, else when that has changed or `wait_s` later."""
        waiting = (("index", str(index)), ("wait", f"{int(wait_s * 1000)}ms")) if index else ()
        limit_s = _ANSWER_S + (
            wait_s + wait_s / 16 if index else 0.0
        )  # by which agents prolong a wait, not to wake all at once
        answer = await self._ask(
            "GET",
            f"/v1/health/service/{quote(service, safe='')}",
            (("passing", "1"), *waiting, *query),
            headers=headers,
            limit_s=limit_s,
        )
        told = next((value for name, value in answer.headers if name.lower() == b"x-consul-index"), b"")
        try:
            found = msgspec.json.decode(answer.body, type=list[Healthy])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConsulError(self.where, f"an answer that can't be read: {error}") from error
        return Answer(found, int(told) if told.isdigit() and len(told) <= _INDEX_DIGITS else 0)

    async def _ask(
        self,
        method: str,
        path: str,
        query: Pairs = (),
        *,
        headers: Pairs = (),
        body: Registration | None = None,
        limit_s: float = _ANSWER_S,
        missing_is_fine: bool = False,
    ) -> HttpAnswer:
        settings = self._settings
        parameters = urlencode([*settings.query, *query])
        own = dict(headers)
        kept = [(name, value) for name, value in settings.headers if name not in own]
        try:
            answer = await self._request(
                settings.address,
                method,
                f"{settings.prefix}{path}?{parameters}" if parameters else f"{settings.prefix}{path}",
                headers=[*kept, *headers, ("content-type", "application/json")],
                body=msgspec.json.encode(body) if body is not None else b"",
                timeout_s=limit_s,
                tls=settings.tls,
                server_name=settings.server_name,
                limit_bytes=_MAX_BYTES,
            )
        except TimeoutError as error:
            raise ConsulError(self.where, f"no answer within {limit_s:g} s") from error
        except (OSError, ValueError) as error:
            raise ConsulError(self.where, str(error).removeprefix(f"{self.where}: ")) from error
        if answer.status // 100 != 2 and not (answer.status == 404 and missing_is_fine):
            said = answer.body[:200].decode("utf-8", "replace").strip()
            raise ConsulError(self.where, f"answered {answer.status}" + (f": {said}" if said else ""))
        return answer
