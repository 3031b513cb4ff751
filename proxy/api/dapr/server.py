"""The gRPC server of Dapr's API on a private socket: the engine takes calls there, so deadlines, floods and tokens are judged before."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc.aio

from proxy.api.dapr import standard
from proxy.api.dapr.leaving import Leaving
from proxy.api.dapr.receiving import limits
from proxy.api.dapr.service import DaprService, Invoke, Refused, SidecarApi
from proxy.errors import ListenError

# gRPC drops some calls, as CANCELLED, when 1,000 have come in and not been looked at; the service itself refuses those beyond CALLS.
_PENDING: Final = tuple(
    (f"grpc.server.max_pending_requests{which}", 1 << 20) for which in ("", "_hard_limit")
)
_END_S: Final = 1.0  # for answers that are on their way out: the engine has drained its callers before


async def serve(
    api: SidecarApi,
    invoke: Invoke,
    path: Path,
    max_bytes: int,
    started: Callable[[str], None],
    *,
    refused: Refused,
    head_bytes: int,
    leaving: Leaving,
) -> None:
    """Answer on `path` until cancelled; `started` is told the address. max_bytes: of a request; head_bytes: see DaprService.

    Raises ListenError.
    """
    server = grpc.aio.server(options=(*limits(max_bytes), *_PENDING))
    service = DaprService(api, invoke, refused, max_bytes, head_bytes)
    server.add_generic_rpc_handlers((service.handlers(), *standard.handlers(api, leaving)))
    address = f"unix:{path}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError("dapr-api", address, str(error)) from error
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
    await server.start()
    try:
        started(address)
        await server.wait_for_termination()
    finally:
        await server.stop(_END_S)
