"""What every service of the shop does the same way: listen, answer health and reflection, call others, stop."""

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from examples.boutique.services import tracing

HOST = "127.0.0.1"
CALL_TIMEOUT_S = 15.0  # the first call of all, on a small machine that starts eighteen processes
DRAIN_S = 5.0

# Stock gRPC: a call that names no deadline gets one, and waits for its server rather than fail at once.
_CALLS = {"methodConfig": [{"name": [{}], "timeout": f"{CALL_TIMEOUT_S:.0f}s", "waitForReady": True}]}


class ServiceUnavailableError(Exception):
    """An HTTP service did not give the answer asked for."""


def app_port() -> int:
    """The port to listen on, from APP_PORT or PORT; 0 means any free one."""
    return int(os.environ.get("APP_PORT") or os.environ["PORT"])


def connect(variable: str) -> grpc.Channel:
    """Open a channel to the address in an environment variable such as CART_SERVICE_ADDR."""
    channel = grpc.insecure_channel(
        os.environ[variable], options=[("grpc.service_config", json.dumps(_CALLS))]
    )
    return grpc.intercept_channel(channel, tracing.ForwardContext())


def fetch_json(variable: str, method: str, path: str, body: object = None) -> object:
    """Call the HTTP service whose `host:port` is in an environment variable, and read its JSON answer.

    Raises: ServiceUnavailableError.
    """
    connection = http.client.HTTPConnection(os.environ[variable], timeout=CALL_TIMEOUT_S)
    headers = {"accept": "application/json", "content-type": "application/json", **dict(tracing.current())}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise ServiceUnavailableError(f"{method} {path}: expected 2xx, got {answer.status}")
        return json.loads(content) if content else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServiceUnavailableError(f"{method} {path}: {error}") from error
    finally:
        connection.close()


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    """End the call being served with a status."""
    context.abort(code, message)
    raise AssertionError("abort raises")


def serve_grpc(service: str, register: Callable[[grpc.Server], None]) -> None:
    """Serve one gRPC service, with health and reflection, until SIGTERM or SIGINT; then drain.

    `service` is the full name, such as `shop.CartService`.
    """
    stop = _stop_signal()
    server = grpc.server(ThreadPoolExecutor(max_workers=8), interceptors=[tracing.ReceiveContext()])
    register(server)
    status = health.HealthServicer()
    status.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection((service, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(f"{HOST}:{app_port()}")
    server.start()
    _announce(service, port)
    stop.wait()
    status.enter_graceful_shutdown()
    server.stop(DRAIN_S).wait()


def serve_http(name: str, handler: type[BaseHTTPRequestHandler]) -> None:
    """Serve HTTP with a thread for each connection until SIGTERM or SIGINT."""
    stop = _stop_signal()
    server = ThreadingHTTPServer((HOST, app_port()), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="accept").start()
    _announce(name, server.server_port)
    stop.wait()
    server.shutdown()
    server.server_close()


def _stop_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _announce(name: str, port: int) -> None:
    print(f"{name} listening on {HOST}:{port}", flush=True)
