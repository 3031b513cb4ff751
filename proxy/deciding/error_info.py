"""Refusals of the sidecar's own API in gRPC, with the ErrorInfo that Dapr's have. Pure."""

from base64 import b64encode

from msgspec.structs import replace

from proxy import errors
from proxy.contract.plan import Reply
from proxy.wire.status_details import status_details


def with_error_info(reply: Reply, phrase: str, status: int, text: str) -> Reply:
    """The same answer with details: the HTTP status that it stands for, its phrase, and a text."""
    details = status_details(reply.grpc_code, phrase, status, text.encode())
    return replace(reply, headers=(*reply.headers, (errors.DETAILS, b64encode(details).rstrip(b"="))))
