"""Logins of browsers: what a state proves, and where it leads back to."""

from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace

from policies.rules.pipelines import OAuth2
from proxy.contract.head import Headers, RequestHead
from proxy.deciding.login import LOGIN_S, Callback, Logins, read_cookie, set_cookie
from tests.unit.proxy.heads import head

ONE = OAuth2(
    name="login",
    client_id="me",
    client_secret="s",
    scopes=("a", "b"),
    auth_url="https://p.example/auth?x=1",
    token_url="https://p.example/token",
    redirect_url="https://shop.example/back",
    header="authorization",
)
LOGINS = Logins(b"k" * 32, lambda: "n" * 32, lambda: 1_000.0)


def cookie_of(headers: Headers) -> bytes:
    """What a browser sends back."""
    (sent,) = [data for name, data in headers if name == b"set-cookie"]
    return sent.partition(b";")[0]


def begun(path: str, logins: Logins = LOGINS, one: OAuth2 = ONE) -> tuple[bytes, str]:
    """The cookie and the state of a login that began at a path."""
    made = logins.begin(one, asked(path))
    state = parse_qs(urlsplit(dict(made)[b"location"].decode()).query)["state"][0]
    return cookie_of(made), state


def asked(target: str, cookie: bytes = b"") -> RequestHead:
    path, _, query = target.partition("?")
    headers = ((b"cookie", cookie),) if cookie else ()
    return replace(head("/"), path=path, query=query.encode(), target=target.encode(), headers=headers)


def back(
    cookie: bytes, state: str, rest: str = "&code=c", logins: Logins = LOGINS, one: OAuth2 = ONE
) -> Callback | None:
    return logins.callback(one, asked(f"/back?state={state}{rest}", cookie))


def test_browser_is_sent_to_the_provider_with_what_it_needs() -> None:
    headers = dict(LOGINS.begin(ONE, asked("/a?b=c")))
    url = urlsplit(headers[b"location"].decode())
    assert (url.netloc, url.path) == ("p.example", "/auth")
    assert parse_qs(url.query) == {
        "x": ["1"],
        "client_id": ["me"],
        "redirect_uri": ["https://shop.example/back"],
        "response_type": ["code"],
        "scope": ["a b"],
        "state": ["n" * 32],
        "access_type": ["offline"],
    }
    assert headers[b"cache-control"] == b"no-store"
    for part in (b"; HttpOnly", b"; Secure", b"; SameSite=Lax", b"; Path=/", b"; Max-Age=600"):
        assert part in headers[b"set-cookie"]
    assert headers[b"set-cookie"].startswith(b"__Host-postern-login-")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a?b=c&d=%zz", "/a?b=c&d=%zz"),
        ("//evil.example/x", "/evil.example/x"),
        ("/\\evil.example", "/evil.example"),
        ("/\\/evil.example", "/evil.example"),
        ("*", "/*"),
        ("/" + "a" * 2_048, "/"),
    ],
)
def test_browser_comes_back_to_a_path_of_this_host(path: str, found: str) -> None:
    cookie, state = begun(path)
    assert back(cookie, state) == Callback("c", found)


def test_error_of_the_provider_is_read() -> None:
    cookie, state = begun("/a")
    assert back(cookie, state, "&error=access_denied") == Callback("", "/a", "access_denied")


def test_state_counts_with_the_cookie_of_the_browser_that_began_alone() -> None:
    cookie, state = begun("/a")
    other = replace(LOGINS, nonce=lambda: "m" * 32)
    assert back(b"", state) is None
    assert back(cookie, "m" * 32) is None
    assert back(cookie, "\u00e4") is None
    assert back(begun("/a", other)[0], state) is None
    assert back(cookie, state, "") is None
    assert back(cookie + b"; " + cookie, state) is None


def test_cookie_that_was_not_sealed_here_does_not_count() -> None:
    cookie, state = begun("/a")
    name, _, value = cookie.partition(b"=")
    parts = value.split(b".")
    for changed in (
        b".".join((*parts[:2], b"L2I", parts[3])),
        b".".join((parts[0], b"9999999999", *parts[2:])),
        b".".join(parts[:3]),
        b"x",
        b"",
    ):
        assert back(name + b"=" + changed, state) is None
    assert back(cookie, state, logins=replace(LOGINS, key=b"j" * 32)) is None
    assert back(cookie, state, one=replace(ONE, client_id="else")) is None


def test_login_ends_after_a_while() -> None:
    cookie, state = begun("/a")
    assert back(cookie, state, logins=replace(LOGINS, now=lambda: 1_000.0 + LOGIN_S)) is not None
    assert back(cookie, state, logins=replace(LOGINS, now=lambda: 1_002.0 + LOGIN_S)) is None


def test_cookie_is_read_among_others() -> None:
    plain = replace(ONE, redirect_url="http://localhost/back")
    name, data = set_cookie(plain, "session", "v", 60)
    assert (name, b"Secure" in data, data.startswith(b"postern-session-")) == (b"set-cookie", False, True)
    pair = data.partition(b";")[0]
    assert read_cookie(plain, "session", ((b"cookie", b"a=b; " + pair), (b"cookie", b"c=d"))) == "v"
    assert read_cookie(ONE, "session", ((b"cookie", pair),)) is None
    assert read_cookie(replace(plain, force_https=True), "session", ((b"cookie", pair),)) is None


def test_query_of_more_fields_than_any_provider_sends_is_no_end_of_a_login() -> None:
    cookie, state = begun("/a")
    assert back(cookie, state, "&code=c" + "&a=1" * 100) is None
    assert back(cookie, state) is not None
