"""What GET /v1.0/metadata says, as the message of GetMetadata. Pure."""

from collections.abc import Mapping
from typing import Any

from proxy.api.dapr.runtime_pb2 import (
    ActorRuntime,
    AppConnectionHealthProperties,
    AppConnectionProperties,
    GetMetadataResponse,
    MetadataHTTPEndpoint,
    MetadataResiliency,
    RegisteredComponents,
)


def metadata_response(told: Mapping[str, Any]) -> GetMetadataResponse:
    """The same facts; what the JSON leaves out is left at its default."""
    response = GetMetadataResponse(
        id=told["id"],
        runtime_version=told["runtimeVersion"],
        extended_metadata=told["extended"],
        registered_components=[RegisteredComponents(**one) for one in told.get("components", ())],
        enabled_features=told.get("enabledFeatures", ()),
        http_endpoints=[MetadataHTTPEndpoint(name=one["name"]) for one in told.get("httpEndpoints", ())],
        resiliencies=[MetadataResiliency(name=one["name"]) for one in told.get("resiliencies", ())],
        actor_runtime=ActorRuntime(runtime_status=told["actorRuntime"]["runtimeStatus"]),
    )
    app = told.get("appConnectionProperties")
    if app is not None:
        response.app_connection_properties.CopyFrom(_connection(app))
    return response


def _connection(app: Mapping[str, Any]) -> AppConnectionProperties:
    health = app.get("health")
    return AppConnectionProperties(
        port=app.get("port", 0),
        protocol=app["protocol"],
        channel_address=app["channelAddress"],
        max_concurrency=app.get("maxConcurrency", 0),
        health=None
        if health is None
        else AppConnectionHealthProperties(
            health_check_path=health.get("healthCheckPath", ""),
            health_probe_interval=health["healthProbeInterval"],
            health_probe_timeout=health["healthProbeTimeout"],
            health_threshold=health["healthThreshold"],
        ),
    )
