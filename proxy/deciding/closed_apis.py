"""Which APIs `spec.api` closes, and how a call of one is answered: over HTTP as for an unknown path, in gRPC not implemented. Pure."""

from msgspec.structs import replace

from policies.rules.api_lists import ApiLists
from proxy import errors
from proxy.contract.plan import Cause, Labels, Reply
from proxy.deciding.error_info import with_error_info
from proxy.deciding.plain_text import in_plain_text
from telemetry.access_log import CLOSED

_WHY = "is closed by spec.api of the Configuration"
_UNIMPLEMENTED = 12
HEALTH = ("healthz", "outbound")  # never closed
# Of the routes that we serve, the path below /v1.0/ that rules are about.
ROUTES = {
    "metadata": "metadata",
    "metadata-key": "metadata/{key}",
    "shutdown": "shutdown",
    "invoke": "invoke/{app-id}/method/*",
}


def is_route_closed(apis: ApiLists, api: str) -> bool:
    """Whether an API may not be called over HTTP: one of ours, or a building block."""
    return api not in HEALTH and apis.is_closed("http", ROUTES.get(api, api))


def is_method_closed(apis: ApiLists, method: tuple[str, ...]) -> bool:
    """The same of gRPC, by the class of the method (`callee.DaprMethods`). Those of building blocks are missing anyway."""
    if method[0] == "served":
        return apis.is_closed("grpc", method[1])
    return method[0] == "unknown" and apis.lists_allowed("grpc")


def closed_route(labels: Labels, route: str) -> Reply:
    """404 in plain text, as Dapr answers for a path that it does not serve."""
    text = f"404 page not found: the API {route!r} {_WHY}"
    return in_plain_text(errors.reply(Cause.UNSUPPORTED, labels, text, status=404), text)


def closed_method(labels: Labels) -> Reply:
    """UNIMPLEMENTED with an ErrorInfo."""
    text = f"requested endpoint is not available: it {_WHY}"
    labels = replace(labels, decision=CLOSED)
    reply = errors.reply(Cause.UNSUPPORTED, labels, text, grpc=_UNIMPLEMENTED)
    return with_error_info(reply, "Not Implemented", 501, "requested endpoint is not available")
