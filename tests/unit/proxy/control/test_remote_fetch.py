"""What is fetched from other servers for handlers: when, how often, and what is told of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from policies.rules.pipelines import Bearer, ClientCredentials, Middleware, OAuth2, Pipelines
from proxy.control.remote_fetch import RemoteFetch
from proxy.wire.web_client import WebClient
from tests.support.issuer import Issuer, running_issuer

DEADLINE_S = 10.0


class News:
    """Keys that were told of."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._came = asyncio.Event()

    def hear(self, key: str) -> None:
        """There is news."""
        self.told.append(key)
        self._came.set()

    async def next(self) -> None:
        """Until there is more."""
        async with asyncio.timeout(DEADLINE_S):
            await self._came.wait()
        self._came.clear()


@asynccontextmanager
async def fetching(*handlers: Middleware) -> AsyncIterator[tuple[RemoteFetch, News]]:
    remote, news = RemoteFetch(WebClient()), News()
    remote.subscribe(news.hear)
    remote.configure(Pipelines(http=handlers))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(remote.run())
        yield remote, news
        running.cancel()


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with running_issuer(tmp_path, is_secure=False) as made:
        yield made


def bearer(issuer: Issuer, audience: str = "shop", jwks_url: str = "") -> Bearer:
    return Bearer(name="b", issuer=issuer.url, audience=audience, jwks_url=jwks_url)


def credentials(issuer: Issuer, **changes: object) -> ClientCredentials:
    settings = {
        "name": "t",
        "client_id": "me:",
        "client_secret": "s3cret&",
        "scopes": ("a", "b"),
        "token_url": f"{issuer.url}/token",
        "header": "authorization",
        "endpoint_params": (("audience", "x"),),
    }
    return ClientCredentials(**{**settings, **changes})  # type: ignore[arg-type]


async def test_keys_are_found_by_discovery_once_for_all_audiences(issuer: Issuer) -> None:
    one, two = bearer(issuer), bearer(issuer, "other")
    async with fetching(one, two) as (remote, news):
        assert remote.keys(one.keys).keys is None
        await news.next()
        found = remote.keys(two.keys)
    assert [key.kid for key in found.keys or ()] == ["rsa", "ec"]
    assert (found.error, found.may_renew, issuer.count("/keys")) == ("", False, 1)


async def test_keys_at_a_url_of_their_own_need_no_discovery(issuer: Issuer) -> None:
    one = bearer(issuer, jwks_url=f"{issuer.url}/keys")
    async with fetching(one) as (remote, news):
        await news.next()
        assert remote.keys(one.keys).keys is not None
    assert issuer.count("/.well-known/openid-configuration") == 0


async def test_failure_is_told_and_tried_again(issuer: Issuer) -> None:
    issuer.status["/keys"] = 500
    one = bearer(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        failed = remote.keys(one.keys)
        issuer.status.clear()
        await news.next()
        found = remote.keys(one.keys)
    assert failed.keys is None
    assert f"{issuer.url}/keys: answered with status 500" in failed.error
    assert (len(found.keys or ()), found.error) == (2, "")


async def test_document_of_another_issuer_is_refused(issuer: Issuer) -> None:
    one = Bearer(name="b", issuer=f"{issuer.url}/", audience="x")
    async with fetching(one) as (remote, news):
        await news.next()
        assert "is of the issuer" in remote.keys(one.keys).error


@pytest.mark.parametrize("uri", ["https://h:x/", "http://[/", "http://\u4f60/", "file:///etc", 7])
async def test_document_that_leads_nowhere_ends_nothing(issuer: Issuer, uri: object) -> None:
    issuer.jwks_uri = uri
    one = bearer(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        assert remote.keys(one.keys).error != ""
        issuer.jwks_uri = f"{issuer.url}/keys"
        await news.next()
        assert remote.keys(one.keys).keys is not None


async def test_unknown_key_renews_them_ten_minutes_after_the_last_time(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bearer(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        remote.want(one.remote_key)
        assert not remote.keys(one.keys).may_renew
        monkeypatch.setattr("proxy.control.issuer_keys.MIN_RENEW_S", 0.0)
        assert remote.keys(one.keys).may_renew
        issuer.keys = [issuer.jwk("rsa-next")]
        remote.want(one.remote_key)
        await news.next()
        found = remote.keys(one.keys)
    assert [key.kid for key in found.keys or ()] == ["rsa-next"]
    assert issuer.count("/keys") == 2


async def test_token_is_asked_for_by_the_standards_form(issuer: Issuer) -> None:
    one = credentials(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        assert remote.token(one).value == b"Bearer token-1"
    (asked,) = issuer.asked
    assert asked[0] == "POST"
    assert asked[2].get("authorization") == "Basic bWUlM0E6czNjcmV0JTI2"
    assert asked[3] == {"grant_type": "client_credentials", "scope": "a b", "audience": "x"}


@pytest.mark.parametrize(("styles", "count"), [(("header", "form"), 2), (("form",), 1)])
async def test_client_proves_itself_in_the_form_where_that_is_asked(
    issuer: Issuer, styles: tuple[str, ...], count: int
) -> None:
    issuer.accepts = lambda _, form: form.get("client_id") == "me:" and form["client_secret"] == "s3cret&"
    one = credentials(issuer, auth_styles=styles)
    async with fetching(one) as (remote, news):
        await news.next()
        assert remote.token(one).value == b"Bearer token-1"
    assert (len(issuer.asked), issuer.asked[-1][2].get("authorization")) == (count, "")


async def test_token_is_renewed_before_it_ends_and_given_up_when_it_has(issuer: Issuer) -> None:
    issuer.life_s = 2.5
    one = credentials(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        await news.next()
        assert remote.token(one).value == b"Bearer token-2"
        issuer.status["/token"] = 503
        await news.next()
        assert remote.token(one).value is None
        assert "has ended" in remote.token(one).error
        issuer.status.clear()
        while (state := remote.token(one)).value is None:
            await news.next()
    assert state.value == b"Bearer token-3"


async def test_token_that_can_not_be_had_is_told_with_its_url(issuer: Issuer) -> None:
    issuer.status["/token"] = 400
    one = credentials(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        assert f"{issuer.url}/token: answered with status 400" in remote.token(one).error


async def test_life_that_is_no_number_of_seconds_is_told_and_ends_nothing(issuer: Issuer) -> None:
    issuer.life_s = 10**400
    one = credentials(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        assert "has no access_token" in remote.token(one).error


async def test_token_that_ends_at_once_is_not_asked_for_all_the_time(issuer: Issuer) -> None:
    issuer.life_s = 1e-6
    one = credentials(issuer)
    async with fetching(one) as (remote, news):
        await news.next()
        while remote.token(one).value is not None:
            await news.next()
        assert issuer.count("/token") == 1


async def test_only_what_changed_is_fetched_anew(issuer: Issuer) -> None:
    keys, token = bearer(issuer), credentials(issuer)
    async with fetching(keys, token) as (remote, news):
        while remote.token(token).value is None or remote.keys(keys.keys).keys is None:
            await news.next()
        other = credentials(issuer, client_secret="new")
        remote.configure(Pipelines(app=(bearer(issuer, "else"), other)))
        assert remote.token(other).value is None
        assert remote.keys(keys.keys).keys is not None
        await news.next()
        assert remote.token(other).value == b"Bearer token-2"
        remote.configure(Pipelines())
        assert remote.keys(keys.keys).keys is None
    assert issuer.count("/keys") == 1


def login(issuer: Issuer) -> OAuth2:
    return OAuth2(
        name="l",
        client_id="me",
        client_secret="s",
        scopes=(),
        auth_url=f"{issuer.url}/authorize",
        token_url=f"{issuer.url}/token",
        redirect_url="http://localhost/back",
        header="authorization",
    )


async def test_code_becomes_a_session_once(issuer: Issuer) -> None:
    one = login(issuer)
    async with fetching(one) as (remote, news):
        for _ in range(2):
            remote.want(f"{one.remote_key}\nc:1")
        assert remote.login(one, "c:1").session == ""
        await news.next()
        state = remote.login(one, "c:1")
        assert remote.session(one, state.session) == b"Bearer token-1"
        assert (remote.session(one, "other"), state.life_s) == (None, 3_600)
        remote.configure(Pipelines())
        assert remote.session(one, state.session) is None
    assert news.told == ["login:l\nc:1"]
    assert issuer.count("/token") == 1


async def test_code_that_is_not_taken_makes_no_session(issuer: Issuer) -> None:
    issuer.status["/token"] = 400
    one = login(issuer)
    async with fetching(one) as (remote, news):
        remote.want(f"{one.remote_key}\nc")
        await news.next()
        assert "answered with status 400" in remote.login(one, "c").error


async def test_codes_that_are_none_keep_nobody_out(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.control.sessions._MAX_LOGINS", 2)
    issuer.status["/token"] = 400
    one = login(issuer)
    async with fetching(one) as (remote, news):
        for code in "ab":
            remote.want(f"{one.remote_key}\n{code}")
            await news.next()
        issuer.status.clear()
        remote.want(f"{one.remote_key}\nc")
        await news.next()
        assert remote.login(one, "c").session
        assert "status 400" in remote.login(one, "b").error


async def test_sessions_are_bounded_and_the_oldest_goes_first(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.sessions.MAX_SESSIONS", 2)
    one, ids = login(issuer), list[str]()
    async with fetching(one) as (remote, news):
        for code in "abc":
            remote.want(f"{one.remote_key}\n{code}")
            await news.next()
            ids.append(remote.login(one, code).session)
        assert [remote.session(one, session) is not None for session in ids] == [False, True, True]
