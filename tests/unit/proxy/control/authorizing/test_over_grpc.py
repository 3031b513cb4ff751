"""The messages of Envoy's external authorization: ours are read by Envoy's own (xds-protos), and theirs by ours."""

import pytest
from google.protobuf.message import DecodeError

from proxy.contract.plan import Edit, Op
from proxy.control.authorizing.over_grpc import check_request, read_answer
from proxy.control.authorizing.question import Party, Question
from proxy.control.authorizing.verdicts import Allowed, AuthorizerError, Denied
from tests.support.ext_authz import allowed, denied, messages, option

ASKED = Question(
    caller=Party("spiffe://public/ns/default/web", "web.default", "web", "default", "192.0.2.1"),
    callee=Party("spiffe://public/ns/default/shop", "shop.default", "shop", "default"),
    method="POST",
    target="/a?b=c",
    host="shop",
    protocol="HTTP/2",
    headers=(("x-a", "1"), ("x-a", "2"), ("x-b", "é")),
    length=3,
)


def ignore(_: bytes, __: str) -> None:
    """Nobody hears of it."""


def test_request_is_envoys() -> None:
    made = messages.CheckRequest.FromString(check_request(ASKED, "judge"))
    attributes, http = made.attributes, made.attributes.request.http
    assert attributes.source.principal == "spiffe://public/ns/default/web"
    assert attributes.source.address.socket_address.address == "192.0.2.1"
    assert dict(attributes.source.labels) == {"app-id": "web", "namespace": "default"}
    assert (attributes.destination.service, attributes.destination.HasField("address")) == (
        "shop.default",
        False,
    )
    assert (http.method, http.path, http.host, http.scheme, http.protocol, http.size) == (
        *("POST", "/a?b=c", "shop", "http", "HTTP/2"),
        3,
    )
    assert dict(http.headers) == {
        ":method": "POST",
        ":path": "/a?b=c",
        ":authority": "shop",
        ":scheme": "http",
        "x-a": "1,2",
        "x-b": "é",
    }
    assert dict(attributes.context_extensions) == {"authorizer": "judge"}
    assert attributes.request.time.seconds > 0


def test_answer_that_allows() -> None:
    answer = allowed(
        option("x-user", "ann"),
        option("x-group", "ops", append=True),
        remove=("x-token",),
        reply=(option("x-a", "1"), option("x-b", "2", append=False)),
    )
    assert read_answer(answer.SerializeToString(), ignore) == Allowed(
        request=(
            Edit(op=Op.SET, name=b"x-user", data=b"ann"),
            Edit(op=Op.ADD, name=b"x-group", data=b"ops"),
            Edit(op=Op.REMOVE, name=b"x-token"),
        ),
        reply=(Edit(op=Op.ADD, name=b"x-a", data=b"1"), Edit(op=Op.SET, name=b"x-b", data=b"2")),
    )


def test_answer_that_refuses() -> None:
    answer = denied(429, "slow down", option("retry-after", "1"))
    assert read_answer(answer.SerializeToString(), ignore) == Denied(
        429, ((b"retry-after", b"1"),), b"slow down"
    )
    bare = messages.CheckResponse()
    bare.status.code = 7
    assert read_answer(bare.SerializeToString(), ignore) == Denied(403, (), b"")
    contrary = allowed()
    contrary.status.code = 16
    assert isinstance(read_answer(contrary.SerializeToString(), ignore), Denied)


def test_answer_that_lets_pass_with_another_query_alone_does_not_count() -> None:
    answer = allowed(option("x-user", "ann"))
    answer.ok_response.query_parameters_to_remove.append("admin")
    with pytest.raises(AuthorizerError, match="not supported: query_parameters_to_remove"):
        read_answer(answer.SerializeToString(), ignore)


def test_answer_that_says_nothing_lets_nobody_pass() -> None:
    with pytest.raises(AuthorizerError, match="empty"):
        read_answer(b"", ignore)
    with pytest.raises(DecodeError):
        read_answer(b"\xff", ignore)
