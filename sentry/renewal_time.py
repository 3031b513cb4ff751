"""When certificates are replaced: pure functions over moments in epoch seconds, randomness passed in."""

from typing import Final

ROOT_LIFE_S: Final = 3650 * 86400.0
ISSUER_LIFE_S: Final = 365 * 86400.0
_LEAD_CAP_S: Final = 30 * 86400.0
_JITTER: Final = 0.1
_URGENT_SHARE: Final = 0.2
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0
_SHORTEST_RETRY_S: Final = 0.1


def should_rotate(now: float, not_before: float, not_after: float) -> bool:
    """Whether an authority's certificate is due: past half of its life, but not earlier than 30 days before its end."""
    return now >= max(not_before + (not_after - not_before) / 2, not_after - _LEAD_CAP_S)


def renewal_delay_s(life_left_s: float, chance: float) -> float:
    """How long after its receipt a leaf is renewed: half of the life left then, ± 10 %.

    Not half of the whole validity: backdating would put that in the past for short leaves. Never under 0.1 s, so that
    a sentry that hands out dying leaves is not flooded. `chance` is uniform in [0, 1).
    """
    return max(_SHORTEST_RETRY_S, life_left_s / 2 * (1 + _JITTER * (2 * chance - 1)))


def is_urgent(life_left_s: float, life_on_receipt_s: float) -> bool:
    """Whether a leaf is in the last fifth of the life that it had on receipt."""
    return life_left_s <= life_on_receipt_s * _URGENT_SHARE


def retry_delay_s(attempt: int, life_left_s: float | None, chance: float) -> float:
    """The wait after failed renewal number `attempt` (from 1): 1 s doubling to 60 s, ± 10 %.

    While the leaf lives, the wait never passes a fifth of what is left, so that several tries fit before its end. Those many
    don't count after it: then the wait is as long as it has been over, which doubles too.
    `life_left_s` is None where there is no leaf yet.
    """
    delay = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(attempt - 1, 10))
    if life_left_s is not None and life_left_s <= 0:
        delay = min(_LAST_RETRY_S, max(_FIRST_RETRY_S, -life_left_s))
    delay *= 1 + _JITTER * (2 * chance - 1)
    if life_left_s is not None and life_left_s > 0:
        delay = min(delay, life_left_s / 5)
    return max(delay, _SHORTEST_RETRY_S)
