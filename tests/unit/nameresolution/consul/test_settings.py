from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from nameresolution.consul.settings import AgentSettings, ConsulSettings, parse_settings
from nameresolution.errors import ComponentConfigurationError


def test_nothing_given_is_the_local_agent_asked_by_its_cache() -> None:
    assert parse_settings(None, {}) == ConsulSettings(
        agent=AgentSettings(address="127.0.0.1:8500", server_name="127.0.0.1"), query=(("cached", ""),)
    )


def test_configuration_of_daprs_documentation_is_read() -> None:
    check = {"name": "Dapr Health Status", "checkID": "daprHealth:x", "interval": "15s", "http": "http://h/"}
    found = parse_settings(
        {
            "client": {"address": "127.0.0.1:8500"},
            "selfRegister": True,
            "checks": [check],
            "tags": ["dapr", "test"],
            "meta": {"DAPR_METRICS_PORT": 9090},
            "daprPortMetaKey": "PORT",
            "queryOptions": {"useCache": True, "filter": "Checks.ServiceTags contains dapr"},
        },
        {},
    )
    assert found.registers
    assert not found.deregisters
    assert found.checks == (
        {"Name": "Dapr Health Status", "CheckID": "daprHealth:x", "Interval": "15s", "HTTP": "http://h/"},
    )
    assert (found.tags, found.meta, found.port_key) == (
        ("dapr", "test"),
        {"DAPR_METRICS_PORT": "9090"},
        "PORT",
    )
    assert found.query == (("filter", "Checks.ServiceTags contains dapr"), ("cached", ""))


def test_variables_of_consuls_client_fill_in_what_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    env = {
        "CONSUL_HTTP_ADDR": "https://consul.internal/v2",
        "CONSUL_HTTP_TOKEN": "secret",
        "CONSUL_HTTP_AUTH": "joe:pw",
        "CONSUL_HTTP_SSL_VERIFY": "false",
        "CONSUL_NAMESPACE": "team",
        "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
    }
    agent = parse_settings({"client": {"datacenter": "dc2"}}, env).agent
    assert (agent.address, agent.prefix) == ("consul.internal:443", "/v2")
    assert agent.server_name == "server.dc1.consul"
    assert agent.headers == (("authorization", "Basic am9lOnB3"), ("x-consul-token", "secret"))
    assert agent.query == (("dc", "dc2"), ("ns", "team"))
    assert agent.tls is not None
    assert agent.tls.verify_mode is ssl.CERT_NONE
    assert "secret" not in repr(agent)
    given = {"client": {"address": "unix:///run/consul.sock", "tokenFile": str(file)}}
    other = parse_settings(given, {"CONSUL_HTTP_TOKEN": "secret"}).agent
    assert (other.address, other.headers) == ("unix:/run/consul.sock", (("x-consul-token", "from-file"),))


def test_options_of_a_query_become_parameters_and_headers() -> None:
    options = {
        "datacenter": "dc1",
        "allowStale": True,
        "near": "_agent",
        "nodeMeta": {"rack": "1"},
        "relayFactor": 2,
        "token": "t",
        "useCache": True,
        "maxAge": 5_000_000_000,
        "staleIfError": "1m",
        "waitTime": "30s",
        "waitIndex": 7,
    }
    found = parse_settings({"queryOptions": options}, {})
    assert dict(found.query) == {
        "dc": "dc1",
        "near": "_agent",
        "stale": "true",
        "relay-factor": "2",
        "node-meta": "rack:1",
        "cached": "",
    }
    assert found.query_headers == (
        ("x-consul-token", "t"),
        ("cache-control", "max-age=5, stale-if-error=60"),
    )
    assert found.wait_s == 30.0


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ({"selfregistr": True}, "selfregistr: is unknown"),
        ({"client": "127.0.0.1"}, "client: expected a map"),
        ({"client": {"address": "ftp://x"}}, r"client\.address: expected http, https or unix"),
        ({"client": {"scheme": "ftp"}}, r"client\.scheme: expected http or https"),
        ({"client": {"tokenFile": "/nonexistent/token"}}, r"client\.tokenFile: .* No such file"),
        (
            {"client": {"scheme": "https", "tlsConfig": {"caFile": "/nonexistent"}}},
            r"tlsConfig\.caFile: .* No such",
        ),
        (
            {"client": {"scheme": "https", "tlsConfig": {"certFile": "/x"}}},
            r"tlsConfig\.certFile: expected with keyFile",
        ),
        ({"checks": {"name": "x"}}, "checks: expected a list of checks"),
        ({"checks": [{"intervall": "5s"}]}, r"checks\[0\]\.intervall: is unknown"),
        ({"advancedRegistration": {"id": "x"}}, r"advancedRegistration\.Name: expected the app-id"),
        ({"tags": "blue"}, "tags: expected a list of tags"),
        (
            {"queryOptions": {"useCache": True, "maxage": "soon"}},
            r"queryOptions\.MaxAge: expected a duration",
        ),
    ],
)
def test_fault_names_the_field(configuration: dict[str, object], problem: str) -> None:
    with pytest.raises(ComponentConfigurationError, match=problem):
        parse_settings(configuration, {})
