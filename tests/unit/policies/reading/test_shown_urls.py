"""URLs in faults: without what may be a secret."""

import pytest

from policies.reading.shown_urls import shown_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pa55@api.example.com/v1?token=Q", "https://(removed)@api.example.com/v1?(removed)"),
        ("user:pa/s?s#w@rd@api.example.com", "(removed)@api.example.com"),
        ("http://h/x#Q", "http://h/x#(removed)"),
        ("ftp:user:Q@h", "(removed)@h"),
        ("//user:Q@h", "//(removed)@h"),
        ("h/x", "h/x"),
    ],
)
def test_user_query_and_fragment_are_left_out(text: str, shown: str) -> None:
    assert shown_url(text) == shown
