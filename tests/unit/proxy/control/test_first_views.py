"""What deciders begin with."""

from policies.reloading.loading import PolicySources, load
from policies.rules.limits import ConcurrencyRule, Limits
from policies.rules.traffic import TrafficRules
from proxy.control.first_views import app_view, inbound_view
from proxy.deciding.authorizer import Authorizer
from proxy.deciding.limits import inbound_limits
from proxy.settings.parsing import parse


def test_peers_calls_are_limited_from_the_first_one_on() -> None:
    settings = parse(["--app-id", "web", "--app-port", "8080", "--profile", "dev"], {})
    policy = load(PolicySources(own_app_id="web", own_namespace="default", profile="dev"))
    traffic = TrafficRules(inbound=Limits(concurrency=ConcurrencyRule(limit=3), connections=2))
    limits = inbound_limits(traffic)
    view = inbound_view(settings, policy, app_view(settings, healthy=None), Authorizer(policy.access), limits)
    assert view.limits is limits
    assert view.mtls
