"""Who may ask the dashboard."""

import pytest

from telemetry.dashboard.guard import HEADERS, is_token, refusal

TOKEN = "t0ken"
OURS = "127.0.0.1:4000"
BEARER = (b"authorization", b"Bearer t0ken")
VISIT = ((b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document"))


@pytest.mark.parametrize("host", [OURS, "localhost:4000", "[::1]:4000", "localhost"])
def test_own_page_with_the_token_is_answered(host: str) -> None:
    assert refusal(host, [BEARER, (b"sec-fetch-site", b"same-origin")], token=TOKEN) is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4000", "127.0.0.1.evil.example", ""])
def test_host_that_can_be_rebound_is_refused_even_for_the_pages_files(host: str) -> None:
    assert refusal(host, [BEARER], token=TOKEN) == "host"
    assert refusal(host, [], token=None) == "host"


@pytest.mark.parametrize(
    "foreign",
    [
        (b"origin", b"https://evil.example"),
        (b"origin", b"null"),
        (b"origin", b"http://127.0.0.1:4001"),
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-site", b"same-site"),
    ],
)
def test_page_of_another_site_is_refused_even_with_the_token(foreign: tuple[bytes, bytes]) -> None:
    assert refusal(OURS, [BEARER, foreign], token=TOKEN) == "origin"
    assert refusal(OURS, [foreign], token=None) == "origin"


def test_link_followed_from_another_site_opens_the_page_and_no_more() -> None:
    followed = [(b"sec-fetch-site", b"cross-site"), *VISIT]
    assert refusal(OURS, followed, token=None) is None
    assert refusal(OURS, [BEARER, *followed], token=TOKEN) == "origin"


@pytest.mark.parametrize(
    "given", [b"", b"Bearer ", b"Bearer t0ke", b"Bearer t0ken2", b"Basic t0ken", b"t0ken", b"Bearer \xff"]
)
def test_wrong_token_is_refused(given: bytes) -> None:
    assert refusal(OURS, [(b"authorization", given)], token=TOKEN) == "token"


def test_missing_token_is_refused() -> None:
    assert refusal(OURS, [], token=TOKEN) == "token"
    assert not is_token((), TOKEN)


def test_scheme_of_the_token_is_read_in_any_case() -> None:
    assert is_token(((b"authorization", b"bearer t0ken"),), TOKEN)


def test_policy_lets_no_inline_script_or_style_run_and_nobody_frame_it() -> None:
    policy = dict(HEADERS)[b"content-security-policy"].decode()
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert directives["frame-ancestors"] == directives["base-uri"] == directives["form-action"] == "'none'"
    assert "unsafe" not in policy
