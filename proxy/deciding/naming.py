"""Whom a request of the app is for. Six ways name the callee; when two name different ones: own port, header, proxy, authority, path,
service name. Pure.
"""

from proxy import errors
from proxy.contract.plan import Cause, Decision, Edit, Edits, Hold, Op, Reply
from proxy.contract.recording import RecordingHead
from proxy.deciding.building_blocks import missing, missing_service
from proxy.deciding.callee import OUT_PATHS, SERVICES, local_name, parse_callee
from proxy.deciding.closed_apis import closed_route, is_route_closed
from proxy.deciding.outbound_view import Named, OutboundView
from telemetry.hosts import split_authority

SERVICES_HOLD = "services"  # held until routes are learnt
_BASIC: Edits = (Edit(op=Op.REMOVE, name=b"authorization"),)  # it was for us, not for the callee's app


def name_callee(view: OutboundView, head: RecordingHead) -> Named | Decision:
    """Whom a request is for, or the answer to one that names nobody; held where its gRPC service may still be learnt."""
    own_port = view.own_ports.get(head.listener())
    if own_port is None:
        return _by_request(view, head)
    return Named(parse_callee(own_port, view.app.namespace), own_port, "own-port", "own")


def _by_request(view: OutboundView, head: RecordingHead) -> Named | Decision:
    own = view.app.namespace
    header = head.naming(b"dapr-app-id")
    if head.form() == "absolute":
        return (
            _by_proxy(view, head)
            if header is None
            else Named(parse_callee(header, own), header, "header", "own")
        )
    name = local_name(head.authority())
    if header is None and name is not None:
        return Named(parse_callee(name, own), name, "authority", "own")
    if head.protocol() == "grpc":
        return (
            Named(parse_callee(header, own), header, "header", "dapr")
            if header is not None
            else _by_service(view, head)
        )
    if header is not None:
        return Named(parse_callee(header, own), header, "header", "dapr", "whole")
    basic = head.naming(b"authorization")
    if basic is not None:
        return Named(parse_callee(basic, own), basic, "basic", "dapr", "whole", _BASIC)
    path_class = head.path_class(OUT_PATHS)
    assert isinstance(path_class, tuple)
    if path_class[0] == "invoke":
        return Named(parse_callee(path_class[1], own), path_class[1], "path", "dapr", "method")
    return _unnamed(view, path_class)


def _unnamed(view: OutboundView, path_class: tuple[str, ...]) -> Reply:
    """The answer to an HTTP request that names no app."""
    if path_class[0] in ("api", "block") and is_route_closed(view.apis, path_class[1]):
        return closed_route(view.labels("dapr"), path_class[1])
    if path_class[0] == "block":
        text, code = missing(path_class[1])
        return errors.reply(Cause.UNSUPPORTED, view.labels("dapr"), text, status=501, code=code)
    text = (
        "no app is named: use /v1.0/invoke/<app-id>/method/<path>, the header dapr-app-id, "
        "http://<app-id>.localhost, or a port of its own (--upstream)"
    )
    return view.reply(Cause.NO_APP, text, surface="dapr", status=404)


def _by_proxy(view: OutboundView, head: RecordingHead) -> Named | Decision:
    authority = head.authority()
    host, port = split_authority(authority)
    callee = parse_callee(local_name(authority) or host, view.app.namespace)
    if callee is None or port not in ("", "80"):
        text = f"{authority!r} is not an app of this mesh, and this is not an open proxy: put it into no_proxy to reach it directly"
        return view.reply(Cause.NO_APP, text)
    return Named(callee, callee.text, "proxy", "own")


def _by_service(view: OutboundView, head: RecordingHead) -> Named | Decision:
    service = str(head.path_class(SERVICES))
    if not service:
        return view.reply(Cause.UNSUPPORTED, "a gRPC path is exactly /package.Service/Method")
    if service.startswith("dapr.proto."):
        return view.reply(Cause.UNSUPPORTED, missing_service(service))
    text = view.routes.find(service)
    if text is not None:
        return Named(parse_callee(text, view.app.namespace), text, "service", "own")
    claimants = view.routes.claimants(service)
    if claimants:
        found = (
            f"{service} is served by {' and by '.join(claimants)}: say which with --route {service}=<app-id>"
        )
    else:
        near = view.heard.nearest_services(service)
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        found = (
            f"no app is known to serve {service}{meant}: name it with --route {service}=<app-id>, "
            "or let the callee say so with --grpc-service"
        )
    reply = view.reply(Cause.UNSUPPORTED, found)
    if view.learning_for_s > 0 and not claimants and not service.startswith("grpc."):
        return Hold(key=SERVICES_HOLD, for_s=view.learning_for_s, then=reply)
    return reply
