"""What a target is to the bench: where its calls enter, and which processes pay for them."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc

from tests.bench.cases import GRPC_MESSAGE, GRPC_PATH, HTTP_BODY, HTTP_PATH, Case, Protocol
from tests.bench.errors import WrongAnswerError
from tests.support.http_client import request
from tests.support.mesh import Sidecar
from tests.support.processes import Process

STARTUP_RUNS: Final = 5
_FRAME_HEAD: Final = 5
_CHECK_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running target. `proxies`: the processes between load generator and upstream, the caller's first; none for `direct`.

    `another`: starts one more sidecar of the caller. `sidecars`: all there are.
    """

    name: str
    ports: Mapping[Protocol, int]
    proxies: Callable[[Case], tuple[Process, ...]]
    startup_s: float | None = None
    another: Callable[[], Awaitable[Sidecar]] | None = None
    sidecars: tuple[Sidecar, ...] = ()


async def check_answer(target: Target, case: Case) -> None:
    """Make one call and compare its answer. Raises WrongAnswerError."""
    port = target.ports[case.protocol]
    try:
        met = await (_call_grpc(port, case) if case.protocol == "grpc" else _call_http(port, case))
    except (grpc.aio.AioRpcError, OSError, TimeoutError) as error:
        raise WrongAnswerError(target.name, case.name, str(error)) from error
    if met != (GRPC_MESSAGE[_FRAME_HEAD:] if case.protocol == "grpc" else HTTP_BODY):
        raise WrongAnswerError(target.name, case.name, repr(met[:200]))


async def _call_grpc(port: int, case: Case) -> bytes:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(GRPC_PATH, request_serializer=bytes, response_deserializer=bytes)
        metadata = (("dapr-app-id", case.app_id),)
        answer: bytes = await call(
            GRPC_MESSAGE[_FRAME_HEAD:], timeout=_CHECK_S, metadata=metadata, wait_for_ready=True
        )
        return answer


async def _call_http(port: int, case: Case) -> bytes:
    headers = [("dapr-app-id", case.app_id)]
    answer = await request(port, "GET", HTTP_PATH, headers=headers, timeout_s=_CHECK_S)
    return answer.body if answer.status == 200 else json.dumps([answer.status, answer.body.decode()]).encode()
