"""What a sidecar tells Consul of itself, in the form that Dapr's component gives it; pure.

Source: https://developer.hashicorp.com/consul/api-docs/agent/service#register-service
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nameresolution.consul.settings import COMPONENT, ConsulSettings
from nameresolution.errors import AnnouncementError
from nameresolution.resolver import Instance, join_address

# Beside Dapr's port. What a daprd makes of them: nothing.
NAMESPACE_META = "POSTERN_NAMESPACE"
MESH_META = "POSTERN_MESH"
INSTANCE_META = "POSTERN_INSTANCE"
_VARIABLE = re.compile(r"\$\{([A-Z_]+)\}")
Registration = dict[str, object]


def registration(settings: ConsulSettings, instance: Instance) -> Registration:
    """The service as Consul is to know it while it takes calls.

    Raises: AnnouncementError if an app's port or the HTTP API's is needed and missing.
    """
    meta = {
        settings.port_key: str(instance.port),
        NAMESPACE_META: instance.namespace,
        INSTANCE_META: instance.instance,
        **({MESH_META: instance.mesh} if instance.mesh else {}),
    }
    made: object
    if settings.advanced is not None:
        given = settings.advanced.get("Meta")
        made = {**settings.advanced, "Meta": {**(given if isinstance(given, dict) else {}), **meta}}
    else:
        made = {**_service(settings, instance), "Meta": {**settings.meta, **meta}}
    filled = _filled(made, _variables(instance))
    assert isinstance(filled, dict)
    return filled


def withdrawn(service: Registration) -> Registration | None:
    """The same service as one that must not be called: its checks stay, failed. None if it has none."""
    checks = [
        check for check in (service.get("Check"), *_list(service.get("Checks"))) if isinstance(check, dict)
    ]
    if not checks:
        return None
    failed = [
        {
            **{name: check[name] for name in ("CheckID", "Name") if name in check},
            "TTL": "15s",
            "Status": "critical",
            "Notes": "withdrawn by its sidecar",
        }
        for check in checks
    ]
    rest = {name: value for name, value in service.items() if name not in ("Check", "Checks")}
    return {**rest, "Checks": failed}


def service_id(service: Registration) -> str:
    """By which the agent knows it: the name, where no id is given."""
    return str(service.get("ID") or service["Name"])


def _service(settings: ConsulSettings, instance: Instance) -> Registration:
    if not instance.app_port:
        raise AnnouncementError("app port", "not set: pass --app-port, or selfRegister: false", COMPONENT)
    if not instance.http_port:
        problem = "not there to check our health at, as the APIs listen on a Unix socket"
        raise AnnouncementError("HTTP port", f"{problem}; configure advancedRegistration", COMPONENT)
    name = f"{instance.app_id}-{instance.host}-{instance.http_port}"
    health = join_address(instance.http_host or instance.host, instance.http_port)
    default = {
        "Name": "Dapr Health Status",
        "CheckID": f"daprHealth:{name}",
        "Interval": "15s",
        "HTTP": f"http://{health}/v1.0/healthz?appid={instance.app_id}",
        "Status": "passing",  # it is: an agent may take all of the interval before it looks for the first time
    }
    return {
        "ID": name,
        "Name": instance.app_id,
        "Address": instance.host,
        "Port": instance.app_port,
        "Checks": list(settings.checks) or [default],
        "Tags": list(settings.tags),
    }


def _variables(instance: Instance) -> Mapping[str, str]:
    """The variables that a daprd sets before it reads its configuration."""
    return {
        "APP_ID": instance.app_id,
        "APP_PORT": str(instance.app_port or ""),
        "HOST_ADDRESS": instance.host,
        "DAPR_PORT": str(instance.port),
        "DAPR_HTTP_PORT": str(instance.http_port or ""),
        "DAPR_GRPC_PORT": str(instance.grpc_port or ""),
        "DAPR_METRICS_PORT": str(instance.metrics_port or ""),
    }


def _filled(value: object, variables: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: variables.get(found[1], found[0]), value)
    if isinstance(value, Mapping):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, variables) for item in value]
    return value


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
