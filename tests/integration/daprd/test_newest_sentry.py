"""Dapr's sentry of 1.18 signs for our sidecars: Ed25519 from root to leaf, tokens in its answers."""

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration.daprd.skew import OURS, OURS_GRPC, Skew
from tests.integration.mesh.standing import invoke
from tests.support.http_client import request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_ours_ask_the_newest_sentry_as_daprds_do(among_releases: Skew) -> None:
    asked = {one.id: one for one in among_releases.sentry.asked}
    assert set(asked) == {OURS, OURS_GRPC}
    for one in asked.values():
        assert (one.namespace, one.trust_domain, one.token, one.token_validator) == (
            "default",
            "public",
            "",
            0,
        )
        csr = x509.load_pem_x509_csr(one.certificate_signing_request)
        assert isinstance(csr.public_key(), ec.EllipticCurvePublicKey), "the kind that every release takes"


async def test_ours_reach_each_other_under_its_root(among_releases: Skew) -> None:
    told = json.loads((await among_releases.http.admin("/status")).body)["identity"]
    assert (told["state"], told["spiffeId"]) == ("held", f"spiffe://public/ns/default/{OURS}")
    assert told["secondsLeft"] > 80_000
    answer = await request(among_releases.grpc.http_port, "POST", invoke(OURS, "/echo"), body=b"hi")
    assert (answer.status, json.loads(answer.body)["body"]) == (200, "hi")
