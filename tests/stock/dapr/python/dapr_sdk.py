"""Calls by Dapr's own SDK for Python, in an environment of its own: it registers the messages that postern has as well.

`dapr_sdk.py calls APP`: what a program does with a sidecar (DAPR_HTTP_PORT, DAPR_GRPC_PORT) and the HTTP app APP; prints `result {…}`.
`dapr_sdk.py serve`: an app by the SDK's gRPC extension, on a free port that it prints as `serving PORT`.
`dapr_sdk.py callback APP`: calls that app by gRPC and HTTP; prints `result {…}`.
`dapr_sdk.py fields`: the fields of the SDK's messages by name, so that ours can be held to them.
"""

import json
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import grpc
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.health import DaprHealth
from dapr.conf import settings
from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import dapr_pb2, invoke_pb2, metadata_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

QUERY = (("x", "1"), ("y", "a b"))


def main(arguments: list[str]) -> None:
    """Do what the arguments say."""
    warnings.simplefilter("ignore")  # invoke_method by gRPC is deprecated
    command, *names = arguments
    if command == "serve":
        serve()
    told = fields() if command == "fields" else (called if command == "callback" else calls)(*names)
    print(f"result {json.dumps(told)}", flush=True)  # noqa: T201


def calls(app: str) -> dict[str, Any]:
    """Each call, and what came of it."""
    DaprHealth.wait_for_sidecar()
    told: dict[str, Any] = {}
    for protocol in ("grpc", "http"):
        settings.DAPR_API_METHOD_INVOCATION_PROTOCOL = protocol
        with DaprClient() as client:
            client.wait(5)
            told[protocol] = invoked(client, app)
    settings.DAPR_API_METHOD_INVOCATION_PROTOCOL = "grpc"
    with DaprClient() as client:
        code = (("code", "404"),)
        told["missing"] = failed(
            lambda: client.invoke_method(app, "status", http_verb="GET", http_querystring=code)
        )
        told["state"] = failed(lambda: client.get_state("store", "key"))
        client.set_metadata("owner", "blue")
        metadata = client.get_metadata()
        told["metadata"] = {"id": metadata.application_id, "owner": metadata.extended_metadata["owner"]}
        client.shutdown()
    return told


def serve() -> None:
    """Serve until ended."""
    app = App()

    def greet(request: InvokeMethodRequest) -> InvokeMethodResponse:
        sent = dict(request.get_metadata())
        told = {
            "body": request.text(),
            "content_type": request.content_type,
            "caller": sent["dapr-caller-app-id"],
        }
        return InvokeMethodResponse(
            json.dumps(told).encode(), "application/json", headers=(("x-app", "sdk"),)
        )

    app.method(name="greet")(greet)
    port = free_port()
    threading.Thread(target=tell, args=(port,), daemon=True).start()
    app.run(port, listen_address="127.0.0.1")


def free_port() -> int:
    """One that nobody has: the SDK tells nobody which one it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tell(port: int) -> None:
    """Print the port once somebody listens there."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            continue
        print(f"serving {port}", flush=True)  # noqa: T201
        return


def called(app: str) -> dict[str, Any]:
    """What the app by the SDK answers."""
    DaprHealth.wait_for_sidecar()
    told: dict[str, Any] = {}
    for protocol in ("grpc", "http"):
        settings.DAPR_API_METHOD_INVOCATION_PROTOCOL = protocol
        with DaprClient() as client:
            verb = "POST" if protocol == "http" else None
            answer = client.invoke_method(
                app, "greet", data=b"hello", content_type="text/plain", http_verb=verb
            )
            headers = {name.lower(): value for name, value in answer.get_headers()}
            told[protocol] = {**json.loads(answer.data), "x-app": str(headers["x-app"])}
            if protocol == "grpc":
                told["missing"] = failed(lambda: client.invoke_method(app, "nothing"))
    return told


def invoked(client: DaprClient, app: str) -> dict[str, Any]:
    """What an app that echoes says that it was asked."""
    answer = client.invoke_method(
        app, "echo", data=b"hello", content_type="text/plain", http_verb="PUT", http_querystring=QUERY
    )
    echoed = json.loads(answer.data)
    return {
        **{name: echoed[name] for name in ("method", "target", "body")},
        "content_type": answer.content_type,
        "sent": {name.lower(): value for name, value in echoed["headers"]}["content-type"],
    }


def failed(call: Callable[[], object]) -> dict[str, Any]:
    """How a call failed, with the details of the status that it has."""
    try:
        call()
    except grpc.RpcError as error:
        found: Any = error
        if isinstance(found, DaprGrpcError):  # the SDK's own, of some of its methods
            return {"code": found.code().name, "text": found.details()}
        status = rpc_status.from_call(found)
        told: dict[str, Any] = {"code": found.code().name, "text": found.details()}
        for detail in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            told["info"] = {"reason": info.reason, "domain": info.domain, **info.metadata}
        return told
    return {"code": "OK"}


def fields() -> dict[str, dict[str, list[int]]]:
    """Number, type and label of each field by message and name; of an enum each name's number."""
    told: dict[str, dict[str, list[int]]] = {}
    for module in (common_pb2, dapr_pb2, invoke_pb2, metadata_pb2):
        for message in module.DESCRIPTOR.message_types_by_name.values():
            add(message, told)
    return told


def add(message: Any, told: dict[str, dict[str, list[int]]]) -> None:
    """Add a message and those in it."""
    told[message.full_name] = {f.name: [f.number, f.type, int(f.is_repeated)] for f in message.fields}
    for enum in message.enum_types:
        told[enum.full_name] = {value.name: [value.number] for value in enum.values}
    for nested in message.nested_types:
        add(nested, told)


if __name__ == "__main__":
    main(sys.argv[1:])
