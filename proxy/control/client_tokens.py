"""Tokens of our own (`middleware.http.oauth2clientcredentials`): fetched by OAuth 2.0 client credentials, and renewed before they end."""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote_plus, urlencode

from policies.rules.pipelines import ClientCredentials
from proxy.deciding.remote import TokenState
from proxy.wire.http_client import LocalHttpError
from proxy.wire.web_client import WebClient
from telemetry.logs import get_logger

FETCH_S: Final = 10.0
_RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
_LEAD_S: Final = 60.0  # before a token's end, at most a fifth of its life
_TYPES: Final = {"": "Bearer", "bearer": "Bearer", "mac": "MAC", "basic": "Basic"}


class Token(NamedTuple):
    """As a header's value, and its life in seconds; None where that is not told."""

    value: bytes
    life_s: float | None


class TokenAnswerError(ValueError):
    """An answer holds no token."""


class ClientToken:
    """One token. Mutable state: what was had, when it ends, and the last error."""

    def __init__(self, middleware: ClientCredentials, web: WebClient, tell: Callable[[], None]) -> None:
        self._middleware = middleware
        self._web = web
        self._tell = tell
        self._log = get_logger("postern.middleware")
        self.state = TokenState()
        self._ends_at: float | None = None

    def want(self, _: str) -> None:
        """It is on its way anyway."""

    async def run(self) -> None:
        """Fetch and renew it until cancelled."""
        failures = 0
        while True:
            try:
                token = await fetch_token(self._middleware, self._web)
            except (OSError, TimeoutError, TokenAnswerError) as error:
                wait_s: float | None = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                failures += 1
                self._failed(str(error) or f"no answer within {FETCH_S:g} s")
            else:
                failures, wait_s = 0, None
                if token.life_s is not None:
                    wait_s = max(token.life_s - _LEAD_S, token.life_s * 0.8, _RETRY_S[0])
                self._ends_at = None if token.life_s is None else time.monotonic() + token.life_s
                self._set(TokenState(token.value))
            await self._rest(wait_s)

    def _failed(self, reason: str) -> None:
        one = self._middleware
        self._log.warning("token not fetched", component=one.name, url=one.token_url, reason=reason)
        if self.state.value is None:
            self._set(TokenState(None, reason))

    async def _rest(self, wait_s: float | None) -> None:
        """Until it is time to ask again; a token that ends meanwhile is given up."""
        left_s = None if self._ends_at is None else self._ends_at - time.monotonic()
        if self.state.value is not None and left_s is not None and (wait_s is None or left_s < wait_s):
            await asyncio.sleep(max(0.0, left_s))
            wait_s = 0.0 if wait_s is None else wait_s - left_s
            self._ends_at = None
            self._set(TokenState(None, "the last token has ended"))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await asyncio.Event().wait()

    def _set(self, state: TokenState) -> None:
        if state != self.state:
            self.state = state
            self._tell()


async def fetch_token(one: ClientCredentials, web: WebClient) -> Token:
    """A token by RFC 6749 §4.4.2. Raises: OSError; TimeoutError; TokenAnswerError."""
    fields = [("grant_type", "client_credentials"), ("scope", " ".join(one.scopes)), *one.endpoint_params]
    return await ask_for_token(one, fields, one.auth_styles, web)


class Client(Protocol):
    """Who asks, and where."""

    @property
    def client_id(self) -> str:
        """Our id."""

    @property
    def client_secret(self) -> str:
        """Our secret."""

    @property
    def token_url(self) -> str:
        """The token endpoint."""


async def ask_for_token(
    client: Client, fields: list[tuple[str, str]], styles: tuple[str, ...], web: WebClient
) -> Token:
    """One token from a token endpoint; the client proves itself in each of the styles until one is taken (RFC 6749 §2.3.1)."""
    problem: LocalHttpError | None = None
    for style in styles:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        form = [field for field in fields if field[1]]
        if style == "header":
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}".encode()
            headers["authorization"] = f"Basic {b64encode(pair).decode()}"
        else:
            form += [("client_id", client.client_id), ("client_secret", client.client_secret)]
        try:
            answer = await web.fetch(
                client.token_url,
                method="POST",
                headers=headers,
                body=urlencode(form).encode(),
                timeout_s=FETCH_S,
            )
        except LocalHttpError as error:
            problem = error
        else:
            return _read(client.token_url, answer.body)
    assert problem is not None
    raise problem


def _read(url: str, body: bytes) -> Token:
    try:
        told = json.loads(body)
        token, kind, life = told["access_token"], told.get("token_type", ""), told.get("expires_in")
        life_s = None if life in (None, 0, "0") else float(life)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TokenAnswerError(f"{url}: the answer has no access_token") from error
    value = f"{_TYPES.get(str(kind).lower(), kind)} {token}"
    if not isinstance(token, str) or not token or not value.isascii() or not value.isprintable():
        raise TokenAnswerError(f"{url}: its access_token is not valid as a header value")
    if life_s is not None and not 0 < life_s < 1e9:
        raise TokenAnswerError(f"{url}: its expires_in is not a duration")
    return Token(value.encode(), life_s)
