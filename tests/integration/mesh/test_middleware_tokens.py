"""Middleware that asks other servers, between real proxies and a real issuer over HTTPS, over both engines."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.integration.mesh.test_pipelines import component, configuration
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.issuer import Issuer, running_issuer
from tests.support.mesh import Mesh, SharedSentry, Sidecar
from tests.support.web_proxy import running_proxy

NEWS_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A mesh beside an issuer. `cart` is an HTTP app."""

    mesh: Mesh
    engine: str
    issuer: Issuer
    http: App
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    async def start(
        self, name: str, config: str, *components: str, app: App | None = None, **how: Any
    ) -> Sidecar:
        """A sidecar that trusts the issuer's root."""
        resources = self.folder / name
        resources.mkdir()
        for number, text in enumerate(components):
            (resources / f"{number}.yaml").write_text(text, encoding="utf-8")
        path = self.mesh.write(f"{name}-config.yaml", config)
        flags = ("--config", str(path), "--resources-path", str(resources), "--engine", self.engine)
        env = {"SSL_CERT_FILE": str(self.issuer.roots), **self.env}
        return await self.mesh.sidecar(name, app=app, flags=flags, env=env, **how)


@pytest_asyncio.fixture(params=ENGINES)
async def place(request: pytest.FixtureRequest, tmp_path: Path, shared: SharedSentry) -> AsyncIterator[Place]:
    """One for the test."""
    async with running_issuer(tmp_path, is_secure=True) as issuer, Mesh(tmp_path, shared=shared) as mesh:
        folder = tmp_path / "resources"
        folder.mkdir()
        http = await mesh.http_app()
        yield Place(mesh=mesh, engine=request.param, issuer=issuer, http=http, folder=folder)


async def get(sidecar: Sidecar, path: str, *headers: tuple[str, str]) -> Response:
    """Call `cart` by Dapr's path."""
    return await request(sidecar.http_port, "GET", f"/v1.0/invoke/cart/method{path}", headers=headers)


async def until(call: Callable[[], Any], wanted: Callable[[Response], bool]) -> Response:
    """The first answer that is wanted."""
    async with asyncio.timeout(NEWS_S):
        while not wanted(answer := await call()):  # noqa: ASYNC110 - a process has no event for it
            await asyncio.sleep(0.05)
    return answer  # type: ignore[no-any-return]


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


@pytest.mark.parametrize("side", ["httpPipeline", "appHttpPipeline"])
async def test_callers_need_a_token_of_the_issuer(place: Place, side: str) -> None:
    guard = component("guard", "bearer", issuer=place.issuer.url, audience="shop")
    guarded, free = configuration(**{side: [("guard", "bearer")]}), configuration()
    mine, theirs = (guarded, free) if side == "httpPipeline" else (free, guarded)
    await place.start("cart", theirs, guard, app=place.http)
    web = await place.start("web", mine, guard)
    good = [place.issuer.token(kid=kid) for kid in ("rsa", "ec")]
    bad = [
        place.issuer.token(aud="other"),
        place.issuer.token(exp=1),
        place.issuer.token(kid="rsa-unknown"),
        place.issuer.token(algorithm="none", key=""),
    ]
    answers = [await get(web, "/echo", bearer(token)) for token in (*good, *bad, *good)]
    assert [answer.status for answer in answers] == [200, 200, 401, 401, 401, 401, 200, 200]
    headers = dict(json.loads(answers[0].body)["headers"])
    assert headers["authorization"] == f"Bearer {good[0]}"
    for answer in (answers[2], await get(web, "/echo")):
        assert answer.status == 401
        assert answer.get("www-authenticate").startswith('Bearer realm="guard"')
    assert place.issuer.count("/keys") == 1


async def test_rate_limit_further_out_counts_calls_that_are_refused_further_in(place: Place) -> None:
    slow = component("slow", "ratelimit", maxRequestsPerSecond=0.01)
    guard = component("guard", "bearer", issuer=place.issuer.url, audience="shop")
    config = configuration(appHttpPipeline=[("slow", "ratelimit"), ("guard", "bearer")])
    await place.start("cart", config, slow, guard, app=place.http)
    web = await place.start("web", configuration())
    answers = [await get(web, "/echo") for _ in range(2)]
    assert [answer.status for answer in answers] == [401, 429]
    assert 0 < int(answers[1].get("retry-after")) <= 100


async def test_calls_are_refused_while_keys_can_not_be_had_and_served_once_they_are(place: Place) -> None:
    place.issuer.status["/keys"] = 503
    guard = component("guard", "bearer", issuer=place.issuer.url, audience="shop")
    config = configuration(appHttpPipeline=[("guard", "bearer")])
    await place.start("cart", config, guard, app=place.http)
    web = await place.start("web", configuration())
    token = bearer(place.issuer.token())
    answer = await get(web, "/echo", token)
    assert answer.status == 500
    assert f"{place.issuer.url}/keys: answered with status 503".encode() in answer.body
    place.issuer.status.clear()
    await until(lambda: get(web, "/echo", token), lambda found: found.status == 200)


async def test_keys_are_fetched_through_the_proxy_of_the_environment(place: Place) -> None:
    port = urlsplit(place.issuer.url).port
    assert port is not None
    place.issuer.url = "https://issuer.example"
    guard = component("guard", "bearer", issuer=place.issuer.url, audience="shop")
    async with running_proxy(port) as proxy:
        place.env["https_proxy"] = f"http://ada:secret@{proxy.address}"
        await place.start("cart", configuration(), app=place.http)
        web = await place.start("web", configuration(httpPipeline=[("guard", "bearer")]), guard)
        answer = await get(web, "/echo", bearer(place.issuer.token()))
        assert answer.status == 200, answer.body
        assert "secret" not in web.process.output
    assert {(head.first, head.second) for head in proxy.asked} == {("CONNECT", "issuer.example:443")}


async def test_issuer_whose_certificate_is_not_trusted_gives_no_keys(place: Place) -> None:
    guard = component("guard", "bearer", issuer=place.issuer.url, audience="shop")
    place.issuer.roots = None
    config = configuration(httpPipeline=[("guard", "bearer")])
    web = await place.start("web", config, guard)
    answer = await get(web, "/echo", bearer(place.issuer.token()))
    assert answer.status == 500
    assert b"certificate" in answer.body


async def test_requests_are_given_a_token_of_ours(place: Place) -> None:
    ours = component(
        "ours",
        "oauth2clientcredentials",
        clientId="me",
        clientSecret="s3cret",
        scopes="a,b",
        tokenURL=f"{place.issuer.url}/token",
        headerName="X-Token",
    )
    config = configuration(httpPipeline=[("ours", "oauth2clientcredentials")])
    await place.start("cart", configuration(), app=place.http)
    place.issuer.life_s = 4.0
    web = await place.start("web", config, ours)

    async def seen() -> Response:
        return await get(web, "/echo", ("x-token", "mine"))

    def tokens(answer: Response) -> list[str]:
        return [value for name, value in json.loads(answer.body)["headers"] if name.lower() == "x-token"]

    first = await seen()
    assert (first.status, len(tokens(first))) == (200, 1)
    assert tokens(first)[0].startswith("Bearer token-")
    await until(seen, lambda answer: tokens(answer) != tokens(first))
    assert place.issuer.asked[0][3] == {"grant_type": "client_credentials", "scope": "a b"}
    explained = await web.admin("/explain?method=GET&url=/v1.0/invoke/cart/method/echo")
    assert b"(secret)" in explained.body
    assert b"Bearer token-" not in explained.body


async def test_call_without_a_token_to_be_had_says_whose_is_missing(place: Place) -> None:
    place.issuer.status["/token"] = 400
    url = f"{place.issuer.url}/token"
    ours = component(
        "ours",
        "oauth2clientcredentials",
        clientId="me",
        clientSecret="s3cret",
        scopes="a",
        tokenURL=url,
        headerName="authorization",
    )
    config = configuration(appHttpPipeline=[("ours", "oauth2clientcredentials")])
    await place.start("cart", config, ours, app=place.http)
    web = await place.start("web", configuration())
    answer = await get(web, "/echo")
    assert answer.status == 503
    assert f"ours has no token from {url}: {url}: answered with status 400".encode() in answer.body
    assert b"s3cret" not in answer.body
    place.issuer.status.clear()
    found = await until(lambda: get(web, "/echo"), lambda one: one.status == 200)
    assert dict(json.loads(found.body)["headers"])["authorization"].startswith("Bearer token-")


async def test_paths_that_the_filter_does_not_find_are_given_no_token(place: Place) -> None:
    pytest.importorskip("re2")
    ours = component(
        "ours",
        "oauth2clientcredentials",
        clientId="me",
        clientSecret="s",
        scopes="a",
        tokenURL=f"{place.issuer.url}/token",
        headerName="x-token",
        pathFilter="^/echo/in",
    )
    config = configuration(appHttpPipeline=[("ours", "oauth2clientcredentials")])
    await place.start("cart", config, ours, app=place.http)
    web = await place.start("web", configuration())
    found = {}
    for path in ("/echo/in", "/echo/out", "/echo/%69n", "/echo/out/../in"):
        names = {name.lower() for name, _ in json.loads((await get(web, path)).body)["headers"]}
        found[path] = "x-token" in names
    assert found == {"/echo/in": True, "/echo/out": False, "/echo/%69n": True, "/echo/out/../in": True}


class Browser:
    """Goes to pages of one sidecar with the cookies that it was given. `site`: what Sec-Fetch-Site says; None for old browsers."""

    def __init__(self, sidecar: Sidecar, site: str | None = "none") -> None:
        self._sidecar = sidecar
        self.site = site
        self.cookies: dict[str, str] = {}

    async def go(self, target: str, mode: str = "navigate") -> Response:
        """GET a page; redirects are answers."""
        headers = [("Cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))]
        if self.site is not None:
            headers += [("Sec-Fetch-Site", self.site), ("Sec-Fetch-Mode", mode)]
        answer = await request(self._sidecar.http_port, "GET", target, headers=headers)
        for name, value in answer.headers:
            if name.lower() == "set-cookie":
                pair, *attributes = value.split("; ")
                key, _, data = pair.partition("=")
                self.cookies[key] = data
                if "Max-Age=0" in attributes:
                    del self.cookies[key]
        return answer

    async def login(self, issuer: Issuer, path: str) -> Response:
        """Ask for a page, log in at the provider, and come back; the answer to that."""
        sent = await self.go(path)
        assert sent.status == 302, sent.body
        self.site = self.site and "cross-site"
        return await self.go(issuer.authorize(sent.get("location")))

    async def login_refused(self, issuer: Issuer, path: str) -> Response:
        """The same where the user says no."""
        sent = await self.go(path)
        return await self.go(issuer.authorize(sent.get("location"), is_granted=False))


async def protected(place: Place, side: str, **settings: object) -> Sidecar:
    """A caller of `cart`, with a login on one side."""
    login = component(
        "login",
        "oauth2",
        clientId="me",
        clientSecret="s3cret",
        scopes="profile",
        authURL=f"{place.issuer.url}/authorize",
        tokenURL=f"{place.issuer.url}/token",
        redirectURL="http://localhost/v1.0/invoke/cart/method/back",
        authHeaderName="x-login",
        **settings,
    )
    guarded, free = configuration(**{side: [("login", "oauth2")]}), configuration()
    mine, theirs = (guarded, free) if side == "httpPipeline" else (free, guarded)
    await place.start("cart", theirs, login, app=place.http)
    return await place.start("web", mine, login)


@pytest.mark.parametrize(("side", "site"), [("httpPipeline", "none"), ("appHttpPipeline", None)])
async def test_browser_logs_in_and_comes_back(place: Place, side: str, site: str | None) -> None:
    web = await protected(place, side)
    path = "/v1.0/invoke/cart/method/echo/page?x=1"
    one, other = Browser(web, site), Browser(web, site)
    back = await one.login(place.issuer, path)
    assert back.status == 302, back.body
    assert back.get("location") == (path if side == "httpPipeline" else "/echo/page?x=1")
    page = await one.go(path)
    assert page.status == 200
    assert dict(json.loads(page.body)["headers"])["x-login"] == "Bearer token-1"
    assert (await other.go(path)).status == 302
    exchange = place.issuer.asked[-1]
    assert exchange[3] == {
        "grant_type": "authorization_code",
        "code": "code-1",
        "redirect_uri": "http://localhost/v1.0/invoke/cart/method/back",
    }
    assert place.issuer.count("/token") == 1
    if (
        site is not None
    ):  # a page of another site has the browser load something, which sends no cookie but with its leave
        assert (await one.go(path, "no-cors")).status == 403


async def test_code_that_the_provider_does_not_take_and_a_state_of_somebody_else_let_nobody_in(
    place: Place,
) -> None:
    web = await protected(place, "httpPipeline")
    path = "/v1.0/invoke/cart/method/echo/page"
    one, thief = Browser(web), Browser(web)
    sent = await one.go(path)
    callback = place.issuer.authorize(sent.get("location"))
    assert (await thief.go(callback)).status == 302
    assert thief.cookies.keys() == one.cookies.keys()
    assert place.issuer.count("/token") == 0
    place.issuer.status["/token"] = 400
    failed = await one.go(callback)
    assert failed.status == 500
    assert f"login has no token from {place.issuer.url}/token".encode() in failed.body
    place.issuer.status.clear()
    refused = await Browser(web).login_refused(place.issuer, path)
    assert refused.status == 401
    assert b"access_denied" in refused.body


async def test_session_ends_with_its_token(place: Place) -> None:
    place.issuer.life_s = 1.5
    web = await protected(place, "httpPipeline")
    path = "/v1.0/invoke/cart/method/echo/page"
    one = Browser(web)
    assert (await one.login(place.issuer, path)).status == 302
    assert (await one.go(path)).status == 200
    answer = await until(lambda: one.go(path), lambda found: found.status != 200)
    assert answer.status == 302
    assert answer.get("location").startswith(place.issuer.url)
