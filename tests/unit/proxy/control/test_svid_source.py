"""Which sentry a sidecar asks, and how it proves itself; the local one is tested with real processes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace

from proxy.control.svid_source import svid_source
from proxy.errors import ConfigError
from proxy.settings.parsing import parse
from proxy.settings.values import Settings
from sentry.bundle import TrustBundle
from sentry.client import Proof, SvidClient
from sentry.errors import FetchError
from sentry.issuer import make_root, new_key
from sentry.spiffe import SpiffeId
from telemetry.logs import get_logger

ROOT = make_root("root", datetime.now(UTC), new_key()).public_bytes(Encoding.PEM)
WEB = SpiffeId.parse("spiffe://public/ns/default/web")


def settings_of(**changes: Any) -> Settings:
    made = parse(["--app-id", "web"], {"POSTERN_HOME": "/nowhere"})
    return replace(made, **{"sentry_address": "127.0.0.1:1", "trust_anchors_pem": ROOT, **changes})


async def source(**changes: Any) -> SvidClient:
    return await svid_source(settings_of(**changes), get_logger("test"), None)


async def test_named_sentry_is_asked_under_the_anchors_given() -> None:
    made = vars(
        await source(control_plane_trust_domain="cluster.local", control_plane_namespace="dapr-system")
    )
    assert made["_address"] == "127.0.0.1:1"
    assert str(made["_sentry_id"]) == "spiffe://cluster.local/ns/dapr-system/dapr-sentry"
    assert made["_anchors"] == TrustBundle.parse(ROOT)


@pytest.mark.parametrize(
    ("anchors", "text"),
    [(None, "DAPR_TRUST_ANCHORS is missing"), (b"", "DAPR_TRUST_ANCHORS"), (b"junk", "DAPR_TRUST_ANCHORS")],
)
async def test_anchors_that_can_not_be_used_stop_the_start(anchors: bytes | None, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await source(trust_anchors_pem=anchors)
    assert text in str(caught.value)


async def test_token_file_is_read_for_each_request(tmp_path: Path) -> None:
    file = tmp_path / "token"
    proof = vars(await source(sentry_token_file=file))["_token_source"]
    with pytest.raises(FetchError):
        proof(WEB)
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        assert proof(WEB).token == token


async def test_no_token_file_no_token() -> None:
    assert vars(await source())["_token_source"](WEB) == Proof()
