"""Who may read the metrics port: TLS from files, and a bearer token in one. Files that have changed are read again, without a restart."""

import hmac
import json
import ssl
from pathlib import Path

from proxy.api.server import Handler, LocalRequest
from proxy.contract.plan import Cause
from proxy.errors import ANSWERS, HEADER, ConfigError, os_reason
from proxy.settings.values import Settings
from proxy.wire.http_client import LocalResponse, LocalStream
from telemetry.logs import get_logger
from telemetry.server_tls import ServerTls, stamp

_UNUSABLE = "the files of the metrics port can't be used, the old ones stay in force"


class BearerToken:
    """The token that the file holds at the time of a request. Mutable state: it, and the file that was last tried."""

    def __init__(self, file: Path) -> None:
        """Raises ConfigError."""
        self._file = file
        try:
            self._tried = stamp((file,))
            self._token = self._read()
        except (OSError, ValueError) as error:
            raise ConfigError((f"--metrics-token-file: {os_text(error)}",)) from error

    def is_in(self, request: LocalRequest) -> bool:
        """Whether the request has it."""
        self._look()
        scheme, _, told = next((d for n, d in request.headers if n == b"authorization"), b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(told.strip(), self._token)

    def _look(self) -> None:
        try:
            found = stamp((self._file,))
            if found != self._tried:
                self._tried = found
                self._token = self._read()
        except (OSError, ValueError) as error:
            get_logger("postern").error(_UNUSABLE, flag="--metrics-token-file", reason=os_text(error))

    def _read(self) -> bytes:
        token = self._file.read_bytes().strip()
        if not token or any(not 0x21 <= byte <= 0x7E for byte in token):
            raise ValueError(f"{self._file}: expected one token of printable ASCII")
        return token


def metrics_tls(settings: Settings) -> ssl.SSLContext | None:
    """TLS of the metrics port, where it is asked for. Raises ConfigError."""
    if settings.metrics_tls is None:
        return None
    try:
        return ServerTls(*settings.metrics_tls, _tell_unusable).context
    except (OSError, ValueError) as error:
        raise ConfigError((f"--metrics-tls-cert, --metrics-tls-key: {os_text(error)}",)) from error


def _tell_unusable(error: Exception) -> None:
    get_logger("postern").error(_UNUSABLE, flag="--metrics-tls-cert", reason=os_text(error))


def with_token(handler: Handler, settings: Settings) -> Handler:
    """The handler, for those alone that know the token, where one is asked for. Raises ConfigError."""
    if settings.metrics_token_file is None:
        return handler
    token = BearerToken(settings.metrics_token_file)
    cause = Cause.UNAUTHENTICATED
    refusal = {"errorCode": ANSWERS[cause].code, "message": "the bearer token is missing or wrong"}
    headers = (
        (b"content-type", b"application/json"),
        (b"www-authenticate", b"Bearer"),
        (HEADER, cause.value.encode()),
    )

    async def answer(request: LocalRequest) -> LocalResponse | LocalStream:
        if token.is_in(request):
            return await handler(request)
        return LocalResponse(401, headers, json.dumps(refusal).encode())

    return answer


def os_text(error: Exception) -> str:
    """What is wrong, with the file's name where the system told one."""
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename}: {os_reason(error)}" if error.filename else os_reason(error)
