"""What is known of endpoints: see `test_choosing` for what is made of it, and for the vectors of both."""

from proxy.engine.portable.balance import EJECT_MAX_S, Load


def test_endpoint_may_stay_away_for_as_long_as_it_likes() -> None:
    dead, stranger = Load("a"), Load("b")
    for _ in range(2_000):
        dead.eject(dead.ejected_until)
        stranger.put_away(stranger.ejected_until)
    assert (dead.failures, stranger.mismatches) == (2_000, 2_000)
    last = dead.ejected_until
    dead.eject(last)
    assert dead.ejected_until - last == EJECT_MAX_S
