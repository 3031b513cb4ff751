"""The native engine's bars beside itself, bodies, memory, and what became of spans."""

from dataclasses import replace

from tests.bench.bars import bars
from tests.bench.cases import CASES, NATIVE, PEERS
from tests.bench.results import Row
from tests.bench.spans import Account
from tests.bench.verdicts import verdicts

ROW = Row(
    case="",
    target=NATIVE,
    calls_per_s=100.0,
    cpu_us_per_call=10.0,
    mean_ms=1.0,
    p50_ms=1.0,
    p99_ms=2.0,
    rss_mb=50.0,
    startup_s=None,
)


def failing(*rows: Row) -> list[str]:
    return [verdict.text for verdict in bars(rows) if not verdict.holds]


def test_spread_cases_are_held_beside_their_base() -> None:
    base, paths = replace(ROW, case="fixed-path"), replace(ROW, case="paths", calls_per_s=80.0)
    assert failing(base, paths) == []
    assert failing(base, replace(paths, calls_per_s=79.0)) == [
        "postern-native, paths: 0.79 x the calls/s of fixed-path (at least 0.8)"
    ]


def test_idle_connections_are_held_to_their_memory_and_not_to_that_of_calls() -> None:
    idle = replace(ROW, case="idle-http1", rss_mb=130.0, idle_kb=16.0)
    assert failing(idle) == []
    assert failing(replace(idle, idle_kb=16.1)) == [
        "postern-native, idle-http1: 16.1 KB per idle connection (at most 16)"
    ]


def test_bodies_are_held_beside_envoy_and_to_flat_memory() -> None:
    small = replace(ROW, case="up-1m", mib_per_s=200.0, peak_mb=60.0)
    large = replace(ROW, case="up-64m", mib_per_s=200.0, peak_mb=69.0)
    envoy = replace(large, target="envoy", mib_per_s=210.0)
    assert failing(small, replace(large, mib_per_s=210.0, peak_mb=68.0), envoy) == []
    assert failing(small, large, envoy) == [
        "postern-native, up-64m: 0.95 x envoy's bytes/s (at least 1)",
        "postern-native, up-64m: at most 69 MB resident, +9 to up-1m (at most +8)",
    ]


def test_memory_is_held_to_envoys_and_to_its_growth() -> None:
    envoy = replace(ROW, case="fixed-path", target="envoy", rss_mb=55.0)
    ours = replace(ROW, case="fixed-path", grown_mb=2.0)
    assert failing(envoy, ours) == []
    assert failing(envoy, replace(ours, rss_mb=56.0, grown_mb=2.1)) == [
        "postern-native, fixed-path: +2.1 MB from the middle round to the last (at most +2)",
        "postern-native, fixed-path: 56 MB resident (less than envoy's 55)",
    ]


def test_unrest_is_held_beside_a_direct_call_and_envoy_in_peace() -> None:
    direct = replace(ROW, case="grpc-one", target="direct", mean_ms=0.1)
    envoy = replace(ROW, case="grpc-one", target="envoy", mean_ms=0.5, p99_ms=1.0)
    restless = replace(ROW, case="grpc-one-restless", mean_ms=0.28, p99_ms=1.0)
    assert failing(direct, envoy, restless) == []
    assert len(failing(direct, envoy, replace(restless, mean_ms=0.3, p99_ms=1.1))) == 2


def test_options_are_held_beside_the_same_without_them() -> None:
    with_log = replace(ROW, case="grpc-unary", target=f"{NATIVE}-logged", calls_per_s=92.0, rss_mb=None)
    without = replace(ROW, case="grpc-unary", rss_mb=None)
    assert failing(with_log, without) == []
    assert failing(replace(with_log, calls_per_s=91.0), without) == [
        "postern-native-logged: 0.910 x the calls/s of postern-native (at least 0.92)"
    ]


def test_every_span_must_be_sent_and_come() -> None:
    account = Account(target="postern-native-traced", calls=10, sent=10, lost=0, received=10)
    (verdict,) = verdicts((), (account,))
    assert verdict.holds
    for wrong in (
        replace(account, sent=9),
        replace(account, received=9),
        replace(account, sent=9, received=9, lost=1),
    ):
        assert not verdicts((), (wrong,))[0].holds


def test_peers_are_called_by_as_many_app_ids() -> None:
    (peers,) = (case for case in CASES if case.name == "peers")
    assert len(set(peers.app_ids)) == PEERS
    assert peers.app_id == peers.app_ids[0]


def test_slow_instance_of_three_is_held_to_the_p99_of_three_that_are_alike() -> None:
    alike, slow = replace(ROW, case="three-alike", p99_ms=10.0), replace(ROW, case="one-slow", p99_ms=12.0)
    in_turn = [replace(row, target="envoy") for row in (alike, replace(slow, p99_ms=200.0))]
    assert failing(alike, slow, *in_turn) == []
    assert failing(alike, replace(slow, p99_ms=12.1), *in_turn) == [
        "postern-native, one-slow: 1.21 x the p99 of three-alike (at most 1.2; envoy: 20.0 x)"
    ]
