"""Middleware that asks other servers, between real proxies and a real issuer over HTTPS, over both engines."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.mesh.test_pipelines import component, configuration
from tests.support.apps import App
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.issuer import Issuer, running_issuer
from tests.support.mesh import Mesh, Sidecar

NEWS_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A mesh beside an issuer. `cart` is an HTTP app."""

    mesh: Mesh
    engine: str
    issuer: Issuer
    http: App
    folder: Path

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
        env = {"SSL_CERT_FILE": str(self.issuer.roots)}
        return await self.mesh.sidecar(name, app=app, flags=flags, env=env, **how)


@pytest_asyncio.fixture(params=ENGINES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """One for the test."""
    async with running_issuer(tmp_path, is_secure=True) as issuer, Mesh(tmp_path) as mesh:
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
