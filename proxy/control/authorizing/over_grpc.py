"""Asks by gRPC, as Envoy does: `envoy.service.auth.v3.Authorization/Check`. Imported when the first such authorizer is asked."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import grpc.aio
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from policies.rules.authorizers import ExternalAuthorizer
from proxy.contract.plan import Edit, Op
from proxy.control.authorizing import messages_pb2 as pb
from proxy.control.authorizing.question import Party, Question
from proxy.control.authorizing.verdicts import Allowed, AuthorizerError, Ignored, Sieve, Verdict

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
_MAX_ANSWER_BYTES: Final = 262_144
# Of an OkHttpResponse: what it asks for is not done, and the call would pass without.
_QUERIES: Final = {7: "query_parameters_to_set", 8: "query_parameters_to_remove"}
_RECONNECT_MS: Final = (("initial", 100), ("min", 100), ("max", 1_000))


class _Opened:
    """A channel, the moment of the roots' file that it was made with, and how many questions are under way on it."""

    def __init__(self, channel: grpc.aio.Channel, roots_at: float) -> None:
        self.channel = channel
        self.roots_at = roots_at
        self.asking = 0


class GrpcClient:
    """Mutable state: the channel for new questions, once there is one. Those before it close with their last question."""

    def __init__(self, spec: ExternalAuthorizer, ignored: Ignored) -> None:
        self._spec = spec
        self._ignored = ignored
        self._opened: _Opened | None = None
        self._is_closed = False

    async def ask(self, asked: Question) -> Verdict:
        """What it says. Raises: AuthorizerError."""
        opened = await self._open()
        call: Any = opened.channel.unary_unary(METHOD, None, None)  # bytes out and in
        opened.asking += 1
        try:
            answer = await call(check_request(asked, self._spec.name), timeout=self._spec.timeout_s)
        except grpc.aio.AioRpcError as error:
            kind = "timeout" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else "error"
            reason = f"{error.code().name}: {error.details() or 'no details'}"
            raise AuthorizerError(reason, kind) from error  # type: ignore[arg-type]
        finally:
            opened.asking -= 1
            await self._close_unused(opened)
        try:
            return read_answer(answer, self._ignored)
        except DecodeError as error:
            raise AuthorizerError("its answer is not a CheckResponse") from error

    async def close(self) -> None:
        """See Client."""
        self._is_closed = True
        opened, self._opened = self._opened, None
        await self._close_unused(opened)

    async def _close_unused(self, opened: _Opened | None) -> None:
        if opened is not None and opened is not self._opened and not opened.asking:
            await opened.channel.close(None)

    async def _open(self) -> _Opened:
        tls = self._spec.tls
        roots_at, roots = 0.0, None
        if tls is not None and tls.ca_file:
            try:
                roots_at = await asyncio.to_thread(lambda: Path(tls.ca_file).stat().st_mtime)
                if self._opened is None or roots_at != self._opened.roots_at:
                    roots = await asyncio.to_thread(Path(tls.ca_file).read_bytes)
            except OSError as error:
                raise AuthorizerError(f"{tls.ca_file}: {error.strerror}") from error
        if self._opened is not None and roots_at == self._opened.roots_at:
            return self._opened
        before, made = self._opened, _Opened(self._channel(roots), roots_at)
        if not self._is_closed:
            self._opened = made
            await self._close_unused(before)
        return made

    def _channel(self, roots: bytes | None) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [
            (f"grpc.{which}_reconnect_backoff_ms", ms) for which, ms in _RECONNECT_MS
        ]
        options += [
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
        ]
        target, tls = f"dns:///{self._spec.target}", self._spec.tls  # a host may be called as a scheme is
        if tls is None:
            return grpc.aio.insecure_channel(target, options=options)
        if tls.server_name:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options=options)


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
    unknown = UnknownFieldSet(allowed)
    numbers = {unknown[at].field_number for at in range(len(unknown))}
    if unmet := [name for number, name in _QUERIES.items() if number in numbers]:
        raise AuthorizerError(
            f"it lets calls pass with another query, which is not supported: {', '.join(unmet)}"
        )
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
