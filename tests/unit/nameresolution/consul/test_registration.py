from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from nameresolution.consul.registration import registration, service_id, withdrawn
from nameresolution.consul.settings import ConsulSettings, parse_settings
from nameresolution.errors import AnnouncementError
from nameresolution.resolver import Instance

CART = Instance(
    app_id="cart",
    namespace="shop",
    host="10.0.0.1",
    port=50002,
    instance="i1",
    mesh="abc",
    app_port=8080,
    http_host="127.0.0.1",
    http_port=3500,
    metrics_port=9090,
)


def test_service_is_as_daprs_component_registers_it() -> None:
    assert registration(ConsulSettings(registers=True), CART) == {
        "ID": "cart-10.0.0.1-3500",
        "Name": "cart",
        "Address": "10.0.0.1",
        "Port": 8080,
        "Tags": [],
        "Meta": {
            "DAPR_PORT": "50002",
            "POSTERN_NAMESPACE": "shop",
            "POSTERN_INSTANCE": "i1",
            "POSTERN_MESH": "abc",
        },
        "Checks": [
            {
                "Name": "Dapr Health Status",
                "CheckID": "daprHealth:cart-10.0.0.1-3500",
                "Interval": "15s",
                "HTTP": "http://127.0.0.1:3500/v1.0/healthz?appid=cart",
                "Status": "passing",
            }
        ],
    }


def test_variables_are_filled_in_wherever_they_stand() -> None:
    given: dict[str, Any] = {
        "name": "${APP_ID}",
        "taggedAddresses": {"lan": {"address": "${HOST_ADDRESS}", "port": 1}},
        "meta": {"M": "${DAPR_METRICS_PORT}", "other": "${OTHER}"},
        "checks": [{"http": "http://${HOST_ADDRESS}:${DAPR_HTTP_PORT}/", "args": ["${APP_PORT}"]}],
    }
    found = registration(parse_settings({"advancedRegistration": given}, {}), CART)
    assert found["Name"] == service_id(found) == "cart"
    assert found["TaggedAddresses"] == {"lan": {"address": "10.0.0.1", "port": 1}}
    assert found["Checks"] == [{"HTTP": "http://10.0.0.1:3500/", "ScriptArgs": ["8080"]}]
    meta = found["Meta"]
    assert isinstance(meta, dict)
    assert (meta["M"], meta["other"], meta["DAPR_PORT"]) == ("9090", "${OTHER}", "50002")


def test_withdrawn_service_has_the_same_checks_failed() -> None:
    service = registration(ConsulSettings(registers=True), CART)
    failed = withdrawn(service)
    assert failed is not None
    assert {**failed, "Checks": 0} == {**service, "Checks": 0}
    assert failed["Checks"] == [
        {
            "Name": "Dapr Health Status",
            "CheckID": "daprHealth:cart-10.0.0.1-3500",
            "TTL": "15s",
            "Status": "critical",
            "Notes": "withdrawn by its sidecar",
        }
    ]
    assert withdrawn({"Name": "cart"}) is None


def test_what_a_registration_needs_is_named() -> None:
    settings = ConsulSettings(registers=True)
    with pytest.raises(AnnouncementError, match="over consul: app port: not set: pass --app-port"):
        registration(settings, replace(CART, app_port=0))
    with pytest.raises(AnnouncementError, match="over consul: HTTP port: not there to check our health at"):
        registration(settings, replace(CART, http_port=0))
