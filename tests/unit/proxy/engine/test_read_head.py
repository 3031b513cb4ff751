"""What deciders see of a head is what is forwarded; what differs is said, or refused."""

import pytest

from proxy.engine.portable.read_head import request_head
from proxy.wire.streams import RawHead, Wire


def raw(target: bytes, *, method: bytes = b"GET", protocol: Wire = "http2") -> RawHead:
    return RawHead(protocol, method, b"cart", target, (), "none", 0)


@pytest.mark.parametrize(
    "target",
    [b"/pkg.Svc/Method", b"/pkg.Svc/Method/", b"/pkg.Svc/Method?x=1", b"//pkg.Svc/%4dethod", b"/a/../b/c"],
)
def test_grpc_path_is_the_whole_target(target: bytes) -> None:
    """A gRPC server compares bytes: what is judged must be what is forwarded."""
    for sent in (target, b"http://cart" + target):
        head, refusal = request_head(raw(sent, method=b"POST", protocol="grpc"), "in", None, "")
        assert (head.path, head.target, refusal) == (target.decode(), target, None)


def test_http_path_is_as_it_was_sent_without_the_query() -> None:
    head, refusal = request_head(raw(b"/a%20b/..//%2F%FF/?q=1"), "in", None, "")
    assert (head.path, head.query, refusal) == ("/a%20b/..//%2F%FF/", b"q=1", None)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
def test_star_is_for_options_alone(method: bytes) -> None:
    assert request_head(raw(b"*", method=method), "in", None, "")[1] is not None
    assert request_head(raw(b"*", method=b"OPTIONS"), "in", None, "")[1] is None


@pytest.mark.parametrize(
    "target", [b"/a b", b"/a\tb", b"/caf\xc3\xa9", b"/a?q=\x01", b"/a?q= x", b"/a?q=\xff", b"/a\x7f"]
)
def test_target_with_bytes_that_must_be_escaped_is_refused(target: bytes) -> None:
    """HTTP/2 lets them through; in the request line of an HTTP/1.1 app they would be something else."""
    assert request_head(raw(target), "in", None, "")[1] is not None
