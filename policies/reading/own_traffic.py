"""Schema of postern's own kind Traffic, read like Dapr's: see `schema.py`."""

from typing import Annotated, Literal

from msgspec import Meta, field

from policies.reading.own_faults import Fault
from policies.reading.own_inbound import Concurrency, Inbound, Throttle
from policies.reading.schema import Metadata, OwnSection


class Hash(OwnSection, frozen=True):
    """`hash` of `balancing`: what decides which endpoint a call goes to."""

    header: str | None = None
    caller: bool = False


class Balancing(OwnSection, frozen=True):
    """`balancing` of a target."""

    policy: Literal["latency", "least-requests", "round-robin", "random", "ring-hash"] = "latency"
    hash: Hash | None = None


class RetryBudget(OwnSection, frozen=True):
    """`retryBudget` of a target: a share of its calls, or a throttle."""

    ratio: float | None = None
    min_retries_per_second: float | None = None
    ttl: str | None = None
    max_tokens: float | None = None
    token_ratio: float | None = None


class Backoff(OwnSection, frozen=True):
    """`backoff` of a target: what Dapr's retry policies have no place for."""

    jitter: Literal["full", "equal", "none"] | None = None
    initial_interval: str | None = None
    multiplier: float | None = None


class Hedging(OwnSection, frozen=True):
    """`hedging` of a target: further attempts beside one that is slow."""

    delay: str
    max_attempts: int = 2
    methods: list[str] = field(default_factory=list)
    non_fatal_status_codes: str = "8,14"


class SuccessRate(OwnSection, frozen=True):
    """`successRate` of `outliers`."""

    endpoints: Annotated[int, Meta(ge=2)] = 5
    requests: Annotated[int, Meta(ge=1)] = 100
    factor: Annotated[float, Meta(ge=0)] = 1.9


class Outliers(OwnSection, frozen=True):
    """`outliers` of a target."""

    enabled: bool = True
    consecutive_failures: Annotated[int, Meta(ge=0, le=1_000_000)] = 5
    success_rate: SuccessRate = SuccessRate()
    ejection: str = "30s"
    max_ejection: str = "300s"
    max_ejected_percent: Annotated[int, Meta(ge=0, le=100)] = 10
    interval: str = "10s"


class Target(OwnSection, frozen=True):
    """`default`, and an entry of `apps`: what holds for calls to an app."""

    balancing: Balancing = Balancing()
    concurrency: Concurrency | None = None
    throttle: Throttle | None = None
    retry_budget: RetryBudget | Literal["off"] | bool | None = None  # to YAML `off` is a boolean
    retry_on: Literal["any", "idempotent"] = "any"
    backoff: Backoff | None = None
    overall_timeout: str | None = None
    hedging: Hedging | None = None
    outliers: Outliers | None = None
    slow_start: str | None = None
    faults: list[Fault] = field(default_factory=list)


class Targets(OwnSection, frozen=True):
    """`spec.targets`: calls that the app makes."""

    default: Target | None = None
    apps: dict[str, Target] = field(default_factory=dict)


class TrafficSpec(OwnSection, frozen=True):
    """`spec` of a Traffic."""

    targets: Targets = Targets()
    inbound: Inbound = Inbound()


class Traffic(OwnSection, frozen=True):
    """kind: Traffic."""

    kind: Literal["Traffic"]
    api_version: Literal["postern.dev/v1alpha1"]
    metadata: Metadata
    spec: TrafficSpec
    scopes: list[str] = field(default_factory=list)
