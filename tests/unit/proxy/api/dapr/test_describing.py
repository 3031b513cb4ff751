"""GetMetadata says what the HTTP API says."""

from google.protobuf.json_format import MessageToDict

from proxy.api.dapr.describing import metadata_response

BARE = {
    "id": "web",
    "runtimeVersion": "1.2",
    "extended": {"owner": "blue"},
    "actorRuntime": {"runtimeStatus": "DISABLED"},
}
APP = {"port": 8080, "protocol": "grpc", "channelAddress": "127.0.0.1", "maxConcurrency": 7}
HEALTH = {
    "healthCheckPath": "/healthz",
    "healthProbeInterval": "5s",
    "healthProbeTimeout": "500ms",
    "healthThreshold": 3,
}
SAME = {"id": "web", "runtimeVersion": "1.2", "actorRuntime": {"runtimeStatus": "DISABLED"}}


def test_sidecar_without_an_app() -> None:
    found = MessageToDict(metadata_response(BARE))
    listed = {"components": [{"name": "m", "type": "t", "version": "v1"}], "enabledFeatures": ["f"]}
    more = MessageToDict(metadata_response({**BARE, **listed}))
    assert (more["registeredComponents"], more["enabledFeatures"]) == (listed["components"], ["f"])
    assert found == {**SAME, "extendedMetadata": {"owner": "blue"}}


def test_app_and_its_health() -> None:
    app = {**APP, "health": HEALTH}
    assert (
        MessageToDict(metadata_response({**BARE, "appConnectionProperties": app}))["appConnectionProperties"]
        == app
    )


def test_what_the_json_leaves_out_is_left_out() -> None:
    health = {key: value for key, value in HEALTH.items() if key != "healthCheckPath"}
    app = {**{key: value for key, value in APP.items() if key != "maxConcurrency"}, "health": health}
    assert (
        MessageToDict(metadata_response({**BARE, "appConnectionProperties": app}))["appConnectionProperties"]
        == app
    )


def test_resources_are_listed_by_name() -> None:
    lists = {"resiliencies": [{"name": "retries"}], "httpEndpoints": [{"name": "shop"}]}
    found = MessageToDict(metadata_response({**BARE, **lists}))
    assert {key: found[key] for key in lists} == lists
