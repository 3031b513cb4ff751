"""Calls of URLs in the world."""

from pathlib import Path

import pytest

from proxy.wire.http_client import LocalHttpError
from proxy.wire.web_client import WebClient
from tests.support.issuer import running_issuer


async def test_server_is_known_by_the_systems_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_issuer(tmp_path, is_secure=True) as issuer:
        assert issuer.roots is not None
        with pytest.raises(LocalHttpError, match="certificate"):
            await WebClient().fetch(f"{issuer.url}/keys", timeout_s=10)
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.roots))
        answer = await WebClient().fetch(f"{issuer.url}/keys?x=1", timeout_s=10)
        assert b"keys" in answer.body
        with pytest.raises(LocalHttpError, match=r"certificate|127\.0\.0\.1"):
            await WebClient().fetch(f"{issuer.url.replace('localhost', '127.0.0.1')}/keys", timeout_s=10)
    (asked,) = issuer.asked
    assert asked[2].second == "/keys?x=1"
    assert asked[2].get("host") == issuer.url.removeprefix("https://")


async def test_answer_of_another_status_is_told(tmp_path: Path) -> None:
    async with running_issuer(tmp_path, is_secure=False) as issuer:
        issuer.status["/keys"] = 302
        with pytest.raises(LocalHttpError, match=r"answered with status 302: .*told to"):
            await WebClient().fetch(f"{issuer.url}/keys", timeout_s=10)


async def test_host_that_is_no_name_is_told_as_a_failed_call() -> None:
    with pytest.raises(LocalHttpError, match="label"):
        await WebClient().fetch("http://a..b/keys", timeout_s=10)
