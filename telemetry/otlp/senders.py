"""Carries a request of OTLP to a collector: over HTTP by our own client, over gRPC by grpcio, which is loaded with the first request."""

import asyncio
import ssl
import zlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from telemetry.errors import ExporterConfigError, ExportError
from telemetry.otlp.target import SERVICES, OtlpTarget, Signal
from telemetry.post import HttpPoster, PostTarget

if TYPE_CHECKING:
    import grpc.aio

#: Smaller bodies cost more to unpack than to send.
GZIP_FROM_BYTES = 1024
_METHODS: Final[dict[Signal, str]] = {signal: f"/{service}/Export" for service, signal in SERVICES.items()}
# Of the OTLP specification; RESOURCE_EXHAUSTED only where the collector says when to come again.
_RETRYABLE = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_RECONNECT_MS: Final = (("initial", 1_000), ("min", 1_000), ("max", 5_000))
_PIECE_BYTES: Final = 64 * 1024


class Sender(Protocol):
    """Owned and used by one task at a time."""

    async def send(self, body: bytes) -> bytes:
        """The collector's answer to a request. Raises: ExportError."""

    async def close(self) -> None:
        """Ends the connection."""


class HttpSender:
    """POSTs requests, gzipped from a KiB on. `marks`: headers beside those of the target."""

    def __init__(self, target: OtlpTarget, signal: Signal, marks: tuple[tuple[str, str], ...] = ()) -> None:
        """Raises: ExporterConfigError when the target is no address, or its client certificate can't be used."""
        kind = "application/json" if target.is_json else "application/x-protobuf"
        self._is_compressed = target.is_compressed
        self._poster = HttpPoster(
            PostTarget.parse("otlp", target.url(signal)),
            headers=(("Content-Type", kind), *marks, *target.headers),
            timeout_s=target.timeout_s,
            tls=_tls(target),
        )

    async def send(self, body: bytes) -> bytes:
        """See Sender."""
        if not self._is_compressed or len(body) < GZIP_FROM_BYTES:
            return await self._poster.post(body, ())
        # Level 1: a third of the time of the default, and spans repeat themselves enough for it.
        gzip = zlib.compressobj(level=1, wbits=31)
        packed: list[bytes] = []
        for start in range(0, len(body), _PIECE_BYTES):
            packed.append(gzip.compress(body[start : start + _PIECE_BYTES]))
            await asyncio.sleep(0)
        packed.append(gzip.flush())
        return await self._poster.post(b"".join(packed), (("Content-Encoding", "gzip"),))

    async def close(self) -> None:
        """See Sender."""
        await self._poster.close()


def _tls(target: OtlpTarget) -> ssl.SSLContext | None:
    if not target.is_secure or not (target.certificate_pem or target.client):
        return None
    context = ssl.create_default_context(cadata=target.certificate_pem.decode("ascii") or None)
    if target.client is not None:
        try:
            load_client(context, *target.client)
        except (OSError, ValueError) as error:
            raise _unusable_client(target.client, error) from error
    return context


def load_client(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have a server be shown a certificate, from files. Raises: OSError, ValueError for such as can't be used."""

    def no_password() -> str:
        raise ValueError("the key has a password, expected one without")

    context.load_cert_chain(certificate, key, password=no_password)


def _unusable_client(files: tuple[str, str], error: Exception) -> ExporterConfigError:
    return ExporterConfigError("otlp", f"client certificate {files[0]} with key {files[1]}: {error}")


class GrpcSender:
    """Calls `Export`. Mutable state: the channel, once there is one."""

    def __init__(self, target: OtlpTarget, signal: Signal, marks: tuple[tuple[str, str], ...] = ()) -> None:
        """Raises: ExporterConfigError when the files of its client certificate can't be read."""
        self._target = target
        self._client: tuple[bytes, bytes] | tuple[None, None] = (None, None)
        if target.is_secure and target.client is not None:
            certificate, key = target.client
            try:
                self._client = Path(certificate).read_bytes(), Path(key).read_bytes()
            except OSError as error:
                raise _unusable_client(target.client, error) from error
        self._method = _METHODS[signal]
        self._metadata = tuple((name.lower(), value) for name, value in (*marks, *target.headers))
        self._channel: grpc.aio.Channel | None = None

    async def send(self, body: bytes) -> bytes:
        """See Sender."""
        grpc = await asyncio.to_thread(import_module, "grpc.aio")
        if self._channel is None:
            self._channel = self._opened()
        call: Any = self._channel.unary_unary(self._method, None, None)  # bytes out and in
        is_compressed = self._target.is_compressed and len(body) >= GZIP_FROM_BYTES
        try:
            answer = await call(
                body,
                metadata=self._metadata,
                timeout=self._target.timeout_s,
                compression=import_module("grpc").Compression.Gzip if is_compressed else None,
            )
        except grpc.AioRpcError as error:
            raise _export_error(error) from error
        assert isinstance(answer, bytes)
        return answer

    async def close(self) -> None:
        """See Sender."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    def _opened(self) -> "grpc.aio.Channel":
        import grpc.aio  # noqa: PLC0415 - loaded before

        target = self._target
        options: list[tuple[str, int]] = [
            (f"grpc.{which}_reconnect_backoff_ms", ms) for which, ms in _RECONNECT_MS
        ]
        options += [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        if target.is_loopback:
            options.append(("grpc.enable_http_proxy", 0))
        if not target.is_secure:
            return grpc.aio.insecure_channel(target.address, options=options)
        certificate, key = self._client
        credentials = grpc.ssl_channel_credentials(target.certificate_pem or None, key, certificate)
        return grpc.aio.secure_channel(target.address, credentials, options=options)


def _export_error(error: "grpc.aio.AioRpcError") -> ExportError:
    from telemetry.otlp.answers import retry_delay_s  # noqa: PLC0415 - loaded before

    code = error.code().name
    trailers: Any = error.trailing_metadata() or ()
    wait_s = retry_delay_s(trailers)
    retryable = code in _RETRYABLE or (code == "RESOURCE_EXHAUSTED" and wait_s is not None)
    return ExportError(
        f"{code}: {error.details() or 'no details'}", retryable=retryable, retry_after_s=wait_s
    )
