"""Refusals of the sidecar's own API in gRPC, with the ErrorInfo that Dapr's have. Pure."""

from base64 import b64encode

from msgspec.structs import replace

from proxy import errors
from proxy.contract.plan import Reply
from proxy.wire.status_details import error_status, status_details


def with_error_info(reply: Reply, phrase: str, status: int, text: str) -> Reply:
    """The same answer with details: the HTTP status that it stands for, its phrase, and a text."""
    return _with_details(reply, status_details(reply.grpc_code, phrase, status, text.encode()))


def with_error_code(reply: Reply, code: str) -> Reply:
    """The same answer with details: the `ERR_…` code that it has over HTTP."""
    return _with_details(reply, error_status(reply.grpc_code, reply.grpc_message, code))


def _with_details(reply: Reply, details: bytes) -> Reply:
    return replace(reply, headers=(*reply.headers, (errors.DETAILS, b64encode(details).rstrip(b"="))))
