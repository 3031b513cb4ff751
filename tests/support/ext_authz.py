"""An external authorizer in the test's own process, on grpcio and Envoy's own messages (xds-protos): says what a test wants it to."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BoolValue
from google.rpc.status_pb2 import Status

from tests.support.processes import REPOSITORY

sys.path.append(str(REPOSITORY / ".cache" / "stock" / "xds"))
messages: Final = pytest.importorskip(
    "envoy.service.auth.v3.external_auth_pb2", reason="xds-protos is not there: make stock"
)

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption  # noqa: E402 - where it was found
from envoy.service.auth.v3.external_auth_pb2 import (  # noqa: E402
    CheckRequest,
    CheckResponse,
    DeniedHttpResponse,
    OkHttpResponse,
)
from envoy.service.auth.v3.external_auth_pb2_grpc import add_AuthorizationServicer_to_server  # noqa: E402
from envoy.type.v3.http_status_pb2 import HttpStatus  # noqa: E402

Judge = Callable[[CheckRequest], CheckResponse]
_OK: Final = 0
_PERMISSION_DENIED: Final = 7


class ExtAuthz:
    """An AuthorizationServicer. Remembers what it was asked. Mutable state: `judge`, and `go`, without which it does not answer."""

    def __init__(self) -> None:
        self.asked: list[CheckRequest] = []
        self.judge: Judge = lambda _: allowed()
        self.go = asyncio.Event()
        self.go.set()
        self.address = ""

    async def Check(self, request: CheckRequest, context: object) -> CheckResponse:  # noqa: N802 - the name of the method
        """See Envoy's Authorization."""
        self.asked.append(request)
        await self.go.wait()
        return self.judge(request)

    @property
    def last(self) -> Any:
        """The HTTP request that it was asked about last."""
        return self.asked[-1].attributes.request.http


def option(name: str, value: str, *, append: bool | None = None) -> HeaderValueOption:
    """A field."""
    made = HeaderValueOption(header=HeaderValue(key=name, value=value))
    if append is not None:
        made.append.CopyFrom(BoolValue(value=append))
    return made


def allowed(
    *fields: HeaderValueOption, remove: tuple[str, ...] = (), reply: tuple[HeaderValueOption, ...] = ()
) -> CheckResponse:
    """Let it pass, with these fields for the app and for the caller."""
    response = OkHttpResponse(headers=fields, headers_to_remove=remove, response_headers_to_add=reply)
    return CheckResponse(status=Status(code=_OK), ok_response=response)


def denied(status: int, body: str, *fields: HeaderValueOption) -> CheckResponse:
    """Refuse it so."""
    response = DeniedHttpResponse(status=HttpStatus(code=status), headers=fields, body=body)
    return CheckResponse(status=Status(code=_PERMISSION_DENIED), denied_response=response)


@asynccontextmanager
async def ext_authz(port: int = 0) -> AsyncIterator[ExtAuthz]:
    """One that listens on loopback."""
    server, made = grpc.aio.server(), ExtAuthz()
    add_AuthorizationServicer_to_server(made, server)
    made.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield made
    finally:
        made.go.set()
        await server.stop(0)
