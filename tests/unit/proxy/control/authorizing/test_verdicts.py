"""What of an authorizer's answer may be done, and what may not."""

import pytest

from proxy.contract.plan import Edit, Op
from proxy.control.authorizing.verdicts import (
    MAX_BODY_BYTES,
    MAX_FIELDS,
    Allowed,
    AuthorizerError,
    Denied,
    Sieve,
    Where,
    together,
    withheld,
)


class Heard:
    """Fields that were left out."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, Where]] = []

    def __call__(self, field: bytes, where: Where) -> None:
        self.fields.append((field, where))


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"dapr-caller-app-id",
            b"Dapr_Caller_Namespace",
            b"postern-claims",
            b"postern_callee",
            b"host",
            b"Host",
        ),
        *(b":path", b":authority", b"connection", b"transfer-encoding", b"content-length", b"te", b"upgrade"),
        *(b"dapr-api-token", b"dapr_app_id", b"x-forwarded-client-cert", b"x_forwarded_client_cert"),
        *(b"traceparent", b"grpc-timeout", b"content-type", b"keep-alive", b"expect", b"http2-settings"),
    ],
)
def test_nothing_that_says_who_calls_or_how_messages_are_framed_is_set_or_removed(name: bytes) -> None:
    heard = Heard()
    sieve = Sieve(heard)
    assert sieve.request(Op.SET, name, b"x") == ()
    assert sieve.request(Op.REMOVE, name) == ()
    assert heard.fields == [(name.lower(), "request")] * 2


def test_other_fields_of_the_request_are_as_asked_for() -> None:
    sieve = Sieve(Heard())
    assert sieve.request(Op.SET, b"X-User", b" ann ") == (Edit(op=Op.SET, name=b"x-user", data=b"ann"),)
    assert sieve.request(Op.REMOVE, b"x-token") == (Edit(op=Op.REMOVE, name=b"x-token"),)
    assert sieve.reply(Op.ADD, b"set-cookie", b"a=b") == (Edit(op=Op.ADD, name=b"set-cookie", data=b"a=b"),)


@pytest.mark.parametrize(
    ("name", "value"), [(b"x-a", b"a\r\nb: c"), (b"x-a", b"a\0"), (b"x a", b""), (b"", b""), (b"x\n", b"")]
)
def test_a_field_that_cannot_be_sent_spoils_the_answer(name: bytes, value: bytes) -> None:
    with pytest.raises(AuthorizerError, match="can't be sent"):
        Sieve(Heard()).request(Op.SET, name, value)
    with pytest.raises(AuthorizerError, match="can't be sent"):
        Sieve(Heard()).refusal(403, [(name, value)], b"")


def test_answers_are_bounded() -> None:
    sieve = Sieve(Heard())
    for _ in range(MAX_FIELDS):
        sieve.reply(Op.ADD, b"x", b"")
    with pytest.raises(AuthorizerError, match="more than"):
        sieve.reply(Op.ADD, b"x", b"")
    with pytest.raises(AuthorizerError, match="more than"):
        Sieve(Heard()).request(Op.SET, b"x", b"a" * 20_000)
    denied = Sieve(Heard()).refusal(403, (), b"a" * (MAX_BODY_BYTES + 1))
    assert len(denied.body) == MAX_BODY_BYTES


def test_a_refusal_keeps_what_its_caller_may_hear() -> None:
    heard = Heard()
    fields = [(b"Location", b"/login"), (b"postern-error", b"x"), (b"content-length", b"3"), (b"date", b"x")]
    assert Sieve(heard).refusal(302, fields, b"go") == Denied(302, ((b"location", b"/login"),), b"go")
    assert heard.fields == [(b"postern-error", "refusal")]
    assert Sieve(heard).refusal(0, (), b"").status == 403
    assert Sieve(heard).refusal(101, (), b"").status == 403
    assert Sieve(heard).refusal(204, (), b"x").body == b""


def test_a_body_that_is_no_text_is_left_out_of_a_refusal_with_what_describes_it() -> None:
    fields = [(b"content-type", b"text/html"), (b"content-encoding", b"gzip"), (b"x", b"y")]
    refused = Denied(403, ((b"x", b"y"),))
    assert Sieve(Heard()).refusal(403, fields, b"\x1f\x8b\x01\x02") == refused
    assert Sieve(Heard()).refusal(403, fields, b"a" * (MAX_BODY_BYTES + 1)) == refused
    assert Sieve(Heard()).refusal(403, fields[2:], b"a\x01b") == refused


def test_what_an_authorizer_alone_gives_is_withheld_but_nothing_that_it_has_no_say_about() -> None:
    removed = tuple(Edit(op=Op.REMOVE, name=name) for name in (b"x-group", b"x-user"))
    assert withheld(["x-user", "x-group", "dapr-caller-app-id", "content-type"]) == removed


def test_of_several_the_last_that_sets_a_field_counts() -> None:
    def edit(op: Op, name: bytes, data: bytes = b"") -> Edit:
        return Edit(op=op, name=name, data=data)

    first = Allowed((edit(Op.SET, b"a", b"1"), edit(Op.ADD, b"b", b"1"), edit(Op.SET, b"c", b"1")))
    second = Allowed((edit(Op.SET, b"a", b"2"), edit(Op.ADD, b"b", b"2"), edit(Op.REMOVE, b"c")))
    assert together((first, second)).request == (
        edit(Op.ADD, b"b", b"1"),
        edit(Op.SET, b"a", b"2"),
        edit(Op.ADD, b"b", b"2"),
        edit(Op.REMOVE, b"c"),
    )
