"""The token that the API ports want, and how a call without it is refused: on Dapr's surface as a daprd does. Pure."""

from msgspec.structs import replace

from proxy.contract.plan import Cause, Reply, Surface
from proxy.contract.recording import RecordingHead
from proxy.deciding.callee import API_TOKEN_SET, local_name
from proxy.deciding.error_info import with_error_info
from proxy.deciding.outbound_view import OutboundView
from proxy.deciding.plain_text import in_plain_text

_WHY = "the header dapr-api-token is missing or wrong"
_PHRASE = "Unauthorized"  # all that a daprd has for grpc-message; the ErrorInfo says why


def refused(view: OutboundView, head: RecordingHead, surface: Surface) -> Reply | None:
    """The answer to a call without the token, in the words of a surface; None where none is wanted, or this is it."""
    if not view.token_required or head.header_is(b"dapr-api-token", API_TOKEN_SET):
        return None
    reply = view.reply(Cause.UNAUTHENTICATED, _WHY, surface=surface)
    if head.protocol() != "grpc":
        return in_plain_text(reply, "invalid api token\n") if surface == "dapr" else reply
    message = _PHRASE if surface == "dapr" else _WHY
    return with_error_info(replace(reply, grpc_message=message), _PHRASE, 401, _WHY)


def surface_of(view: OutboundView, head: RecordingHead) -> Surface:
    """Whose surface a call of an app uses. What names no app is Dapr's over HTTP: its paths are the ports' own."""
    if head.listener() in view.own_ports or head.form() == "absolute":
        return "own"
    if local_name(head.authority()) is None and head.protocol() != "grpc":
        return "dapr"
    return "own" if head.naming(b"dapr-app-id") is None else "dapr"
