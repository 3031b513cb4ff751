"""How a call leaves the mesh, to an HTTPEndpoint or a URL: the Plan to it. Pure.

Nothing of ours goes along: neither tokens nor names of the mesh. An answer is passed on as it is, redirects too: following one could lead
where no rule looks.
"""

import random
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from policies.rules.http_endpoints import HttpEndpoint, Url, parse_url
from policies.rules.resiliency import TargetRules
from proxy.contract.head import Form
from proxy.contract.plan import Cause, Edit, Edits, Labels, Op, Plan, RetryPolicy, Route, Surface
from proxy.contract.recording import RecordingHead
from proxy.deciding.app_answers import CauseReplies
from proxy.deciding.app_plan import NO_VERB, STRIP, STRIP_REPLY, AppView, resent
from proxy.deciding.retry_policies import (
    attempt_timeout,
    breaker_use,
    budget_use,
    hedge,
    overall_limit,
    retry_policies,
)

_ENDPOINT = "http-endpoint:"  # cluster keys
_URL = "url:"
_REDIAL_S = (0.0, 0.05)  # another of a host's addresses, where one does not accept


class External(Struct, frozen=True, kw_only=True):
    """Whom a call leaves the mesh for. key: of the cluster. text: as the caller wrote it. label: in metrics. who: for people.

    is_one: to a circuit breaker all its methods are one, as daprd has it for HTTPEndpoints.
    """

    key: str
    url: Url
    text: str
    label: str
    who: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    is_one: bool = False


def of_endpoint(endpoint: HttpEndpoint, text: str) -> External:
    """What a name of an HTTPEndpoint stands for."""
    return External(
        key=endpoint_key(endpoint.name),
        url=endpoint.url,
        text=text,
        label=endpoint.name,
        who=f"the HTTPEndpoint {endpoint.name} ({endpoint.url})",
        headers=endpoint.headers,
        is_one=True,
    )


def of_url(url: Url, text: str) -> External:
    """What a URL stands for."""
    return External(key=f"{_URL}{url.origin}", url=url, text=text, label=url.origin, who=str(url))


def endpoint_key(name: str) -> str:
    """The cluster key of an HTTPEndpoint."""
    return f"{_ENDPOINT}{name}"


def endpoint_of(key: str) -> str | None:
    """The name of the HTTPEndpoint whose cluster has this key."""
    return key.removeprefix(_ENDPOINT) if key.startswith(_ENDPOINT) else None


def url_of(key: str) -> Url | None:
    """The origin whose cluster has this key."""
    return parse_url(key.removeprefix(_URL)) if key.startswith(_URL) else None


def verbless(head: RecordingHead, external: External, surface: Surface) -> str | None:
    """Why a call of InvokeService that has no verb can't be sent on."""
    if surface != "dapr" or head.method() != NO_VERB:
        return None
    return f"{external.who} speaks HTTP: set http_extension.verb to GET, POST or another one except CONNECT"


def to_external(
    head: RecordingHead,
    external: External,
    app: AppView,
    rules: TargetRules,
    rng: Callable[[], random.Random],
    *,
    labels: Labels,
    surface: Surface,
    rewrite: Edits,
    form: Form,
) -> Plan:
    """The Plan. `form`: of the path that is sent on; `rewrite`: edits of the target, and of what was for us."""
    edits = [Edit(op=Op.HOP_BY_HOP), *STRIP, Edit(op=Op.REMOVE_PREFIX, name=b"dapr-"), *rewrite]
    if external.url.base:
        edits.append(Edit(op=Op.BASE, data=external.url.base.encode()))
    edits += [
        Edit(op=Op.AUTHORITY, data=external.url.authority.encode()),
        Edit(op=Op.TRACE),
        *(Edit(op=Op.SET, name=name, data=data) for name, data in external.headers),
    ]
    own = replace(rules, builtin_retry=None)  # which is between proxies
    return Plan(
        labels=replace(labels, policies=rules.labels(external.text)),
        routes=(Route(cluster=external.key, edits=tuple(edits)),),
        breaker=breaker_use(
            head, rules, external.text, form, method=str(external.url) if external.is_one else None
        ),
        budget=budget_use(head, rules, external.key),
        hedge=hedge(head, rules),
        retries=(*retry_policies(head, own, rng), _redial(), *resent(head, grpc=False)),
        attempt_s=attempt_timeout(head, rules),
        total_s=overall_limit(head, rules),
        body_bytes=app.body_bytes,
        connect_s=app.connect_s,
        replay_bytes=app.replay_bytes,
        reply_edits=STRIP_REPLY,
        local_replies=CauseReplies(labels, surface, external.who, external.text, end="external"),
        scopes=(f"name:{external.key}",),
    )


def _redial() -> RetryPolicy:
    return RetryPolicy(
        attempts=None,
        on=frozenset({Cause.CONNECT}),
        grpc_codes=frozenset(),
        delays_s=lambda: iter(_REDIAL_S),
        is_inner=True,
    )
