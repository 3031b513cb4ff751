"""Asks by gRPC, as Envoy does: `envoy.service.auth.v3.Authorization/Check`. Imported when the first such authorizer is asked."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import grpc.aio
from google.protobuf.message import DecodeError

from policies.rules.authorizers import ExternalAuthorizer
from proxy.contract.plan import Edit, Op
from proxy.control.authorizing import messages_pb2 as pb
from proxy.control.authorizing.question import Party, Question
from proxy.control.authorizing.verdicts import Allowed, AuthorizerError, Ignored, Sieve, Verdict

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
_MAX_ANSWER_BYTES: Final = 262_144
_RECONNECT_MS: Final = (("initial", 100), ("min", 100), ("max", 1_000))


class GrpcClient:
    """Mutable state: the channel, once there is one, and the moment of the roots' file that it was made with."""

    def __init__(self, spec: ExternalAuthorizer, ignored: Ignored) -> None:
        self._spec = spec
        self._ignored = ignored
        self._channel: grpc.aio.Channel | None = None
        self._roots_at = 0.0

    async def ask(self, asked: Question) -> Verdict:
        """What it says. Raises: AuthorizerError."""
        channel = await self._opened()
        call: Any = channel.unary_unary(METHOD, None, None)  # bytes out and in
        try:
            answer = await call(check_request(asked, self._spec.name), timeout=self._spec.timeout_s)
        except grpc.aio.AioRpcError as error:
            kind = "timeout" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else "error"
            reason = f"{error.code().name}: {error.details() or 'no details'}"
            raise AuthorizerError(reason, kind) from error  # type: ignore[arg-type]
        try:
            return read_answer(answer, self._ignored)
        except DecodeError as error:
            raise AuthorizerError("its answer is no CheckResponse") from error

    async def close(self) -> None:
        """Ends the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    async def _opened(self) -> grpc.aio.Channel:
        tls = self._spec.tls
        roots_at, roots = 0.0, None
        if tls is not None and tls.ca_file:
            try:
                roots_at = await asyncio.to_thread(lambda: Path(tls.ca_file).stat().st_mtime)
                if self._channel is None or roots_at != self._roots_at:
                    roots = await asyncio.to_thread(Path(tls.ca_file).read_bytes)
            except OSError as error:
                raise AuthorizerError(f"{tls.ca_file}: {error.strerror}") from error
        if self._channel is not None and roots_at == self._roots_at:
            return self._channel
        await self.close()
        options: list[tuple[str, Any]] = [
            (f"grpc.{which}_reconnect_backoff_ms", ms) for which, ms in _RECONNECT_MS
        ]
        options += [
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ]
        self._roots_at = roots_at
        if tls is None:
            self._channel = grpc.aio.insecure_channel(self._spec.target, options=options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            credentials = grpc.ssl_channel_credentials(roots)
            self._channel = grpc.aio.secure_channel(self._spec.target, credentials, options=options)
        return self._channel


def check_request(asked: Question, name: str) -> bytes:
    """A CheckRequest. name: of the authorizer, in `context_extensions`."""
    http = pb.HttpRequest(
        method=asked.method,
        headers=asked.joined(),
        path=asked.target,
        host=asked.host,
        scheme="http",
        size=-1 if asked.length is None else asked.length,
        protocol=asked.protocol,
    )
    request = pb.Request(http=http)
    request.time.GetCurrentTime()
    attributes = pb.AttributeContext(
        source=_peer(asked.caller),
        destination=_peer(asked.callee),
        request=request,
        context_extensions={"authorizer": name},
    )
    return pb.CheckRequest(attributes=attributes).SerializeToString()


def _peer(party: Party) -> pb.Peer:
    labels = {"app-id": party.app_id, "namespace": party.namespace}
    made = pb.Peer(
        service=party.name,
        labels={name: value for name, value in labels.items() if value},
        principal=party.spiffe_id,
    )
    if party.address:
        made.address.socket_address.address = party.address
    return made


def read_answer(data: bytes, ignored: Ignored) -> Verdict:
    """What a CheckResponse says. Raises: DecodeError, AuthorizerError."""
    answer = pb.CheckResponse.FromString(data)
    sieve = Sieve(ignored)
    if answer.status.code != 0 or answer.HasField("denied_response"):
        denied = answer.denied_response
        fields = [(_key(one), _value(one)) for one in denied.headers]
        return sieve.refusal(denied.status.code or 403, fields, denied.body.encode())
    if not (answer.HasField("status") or answer.HasField("ok_response")):
        raise AuthorizerError("its answer is empty")  # as any server's may be, whatever it is asked
    allowed = answer.ok_response
    request: list[Edit] = []
    for one in allowed.headers:
        request.extend(sieve.request(Op.ADD if one.append.value else Op.SET, _key(one), _value(one)))
    for removed in allowed.headers_to_remove:
        request.extend(sieve.request(Op.REMOVE, removed.encode()))
    return Allowed(tuple(request), tuple(_reply(allowed.response_headers_to_add, sieve)))


def _reply(added: Iterable[pb.HeaderValueOption], sieve: Sieve) -> list[Edit]:
    made: list[Edit] = []
    for one in added:
        # `append` where it is written, else `append_action`: 2 and 3 are those that overwrite.
        is_added = one.append.value if one.HasField("append") else one.append_action not in (2, 3)
        made.extend(sieve.reply(Op.ADD if is_added else Op.SET, _key(one), _value(one)))
    return made


def _key(one: pb.HeaderValueOption) -> bytes:
    return str(one.header.key).encode()


def _value(one: pb.HeaderValueOption) -> bytes:
    return str(one.header.value).encode() or bytes(one.header.raw_value)
