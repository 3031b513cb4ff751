"""Rules of AccessPolicies on the users behind calls, between real proxies and a real issuer, on both engines."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.integration.mesh.standing import eventually, invoke
from tests.integration.mesh.test_access_policies import SERVICE, policy, rule
from tests.support.echo_client import EchoClient
from tests.support.engines import ENGINES
from tests.support.http_client import request
from tests.support.http_wire import Response
from tests.support.issuer import Issuer, running_issuer
from tests.support.mesh import Mesh, Sidecar
from tests.support.proto.echo_pb2 import EchoRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")  # that of the issuer, which runs here


def rules(issuer: Issuer, file: Path) -> str:
    """Reads are for every caller, writes and gRPC for users with a role; tokens of a second issuer count by keys in a file."""
    entries = [
        {"name": "idp", "issuer": issuer.url, "audiences": ["shop"], "forwardClaims": ["sub", "role"]},
        {"name": "batch", "issuer": "batch", "audiences": ["shop"], "jwksFile": str(file)},
    ]
    admins = {"jwt": {"issuers": ["idp"], "claims": {"role": ["admin"]}}}
    return policy(
        rule("reads", "allow", "*", to={"methods": ["GET"]}),
        rule("writes", "allow", "*", to={"methods": ["POST"]}, when=admins),
        rule("jobs", "allow", "*", to={"methods": ["PUT"]}, when={"jwt": {"issuers": ["batch"]}}),
        rule("echo", "allow", "*", to={"grpc": {"services": ["testing.*"]}}, when=admins),
        jwt=entries,
    )


class Place:
    """A caller beside an HTTP app `shop` and a gRPC app `echo`, which trust an issuer, and keys in a file."""

    def __init__(self, web: Sidecar, issuer: Issuer, file: Path) -> None:
        self.web = web
        self.issuer = issuer
        self.file = file

    async def call(self, verb: str, token: str | None, *more: tuple[str, str]) -> Response:
        """The answer to a call to shop."""
        headers = (*more, *((("authorization", f"Bearer {token}"),) if token is not None else ()))
        return await request(self.web.http_port, verb, invoke("shop", "/echo"), headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """One for the module on each engine."""
    files = tmp_path_factory.mktemp("tokens")
    async with running_issuer(files, is_secure=True) as issuer, Mesh(files) as mesh:
        file = files / "keys.json"
        file.write_text(json.dumps({"keys": issuer.keys[1:]}), encoding="utf-8")
        resources = mesh.write("resources/policy.yaml", rules(issuer, file)).parent
        engine = ("--engine", str(request.param))
        flags = (*engine, "--resources-path", str(resources))
        env = {"SSL_CERT_FILE": str(issuer.roots)}
        http_app, grpc_app = await asyncio.gather(mesh.http_app(), mesh.grpc_app())
        _, _, web = await asyncio.gather(
            mesh.sidecar("shop", app=http_app, flags=flags, env=env),
            mesh.sidecar("echo", app=grpc_app, flags=flags, env=env),
            mesh.sidecar("web", flags=engine),
        )
        yield Place(web, issuer, file)


async def test_rules_ask_for_claims_of_users(place: Place) -> None:
    admin, user = place.issuer.token(role=["ops", "admin"]), place.issuer.token(role="user")
    assert (await place.call("GET", None)).status == 200
    assert (await place.call("POST", None)).status == 403
    assert (await place.call("POST", user)).status == 403
    assert (await place.call("POST", admin)).status == 200
    assert (await place.call("POST", user)).status == 403  # nothing of the call before is kept
    assert place.issuer.count("/keys") == 2  # once by each sidecar that asks for tokens


async def test_token_that_does_not_count_is_refused_where_none_is_asked_for(place: Place) -> None:
    for token in (
        "x",
        place.issuer.token(exp=1_000),
        place.issuer.token(aud="else"),
        place.issuer.token(iss="else"),
    ):
        found = await place.call("GET", token)
        assert (found.status, found.get("postern-error")) == (401, "unauthenticated")
        assert found.get("www-authenticate") == 'Bearer realm="shop", error="invalid_token"'


async def test_app_is_told_verified_claims_and_nobody_elses(place: Place) -> None:
    forged = ("postern-claims", "eyJzdWIiOiJyb290In0")
    found = await place.call("GET", None, forged)
    assert "postern-claims" not in {name.lower() for name, _ in json.loads(found.body)["headers"]}
    found = await place.call("GET", place.issuer.token(sub="me", secret="x"), forged)
    told = [value for name, value in json.loads(found.body)["headers"] if name.lower() == "postern-claims"]
    assert [json.loads(base64.urlsafe_b64decode(one + "==")) for one in told] == [{"sub": "me"}]


async def test_keys_in_a_file_are_read_again(place: Place) -> None:
    old, new = place.issuer.token(kid="ec", iss="batch"), place.issuer.token(kid="rsa", iss="batch")
    assert (await place.call("PUT", old)).status == 200
    assert (await place.call("PUT", new)).status == 401
    place.file.write_text(json.dumps({"keys": place.issuer.keys[:1]}), encoding="utf-8")

    async def is_read() -> bool:
        return ((await place.call("PUT", new)).status, (await place.call("PUT", old)).status) == (200, 401)

    await eventually(is_read)


async def test_grpc_calls_bring_tokens_as_metadata(place: Place) -> None:
    async def code(*metadata: tuple[str, str]) -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(f"localhost:{place.web.grpc_port}") as channel:
            client = EchoClient(channel, metadata=(("dapr-app-id", "echo"), *metadata), service=SERVICE)
            found: grpc.StatusCode = await client.unary(EchoRequest(message="x")).code()
            return found

    admin = place.issuer.token(role="admin")
    assert await code() is grpc.StatusCode.PERMISSION_DENIED
    assert await code(("authorization", f"Bearer {admin}")) is grpc.StatusCode.OK
    assert await code(("authorization", f"Bearer {admin}x")) is grpc.StatusCode.UNAUTHENTICATED
