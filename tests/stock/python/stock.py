"""A plain grpcio server and client of the service in ../README.md.

Blocking calls on threads: the asyncio API of grpcio has ways of its own, the core below is the same.
"""

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

DEADLINE_S: Final = 30.0
PAGE: Final = b"p" * 65_536
AS_IS: Final[Callable[[bytes], bytes]] = bytes


def serve() -> None:
    """Serve on a free port of loopback, and print it."""
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda message, _: message),
        "Pages": grpc.unary_stream_rpc_method_handler(_pages),
        "Early": grpc.stream_unary_rpc_method_handler(_early),
    }
    server = grpc.server(ThreadPoolExecutor(64))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("stock.Stock", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"serving {port}", flush=True)  # noqa: T201
    server.wait_for_termination()


def _pages(message: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    for _index in range(int(message)):
        yield PAGE


def _early(messages: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
    next(messages)
    return b"early"


def _told(error: grpc.RpcError) -> str:
    call: Any = error  # what a stub raises is a Call as well
    return f"{call.code()}: {call.details()}"


def _unary(channel: grpc.Channel) -> str:
    sent = b"u" * 100
    got = channel.unary_unary("/stock.Stock/Echo", AS_IS, AS_IS)(sent, timeout=DEADLINE_S)
    return "ok" if got == sent else f"another message: {len(got)} bytes"


def _missing(channel: grpc.Channel) -> str:
    try:
        channel.unary_unary("/stock.Stock/Missing", AS_IS, AS_IS)(b"m", timeout=DEADLINE_S)
    except grpc.RpcError as error:
        told = _told(error)
        return "ok" if told.startswith("StatusCode.UNIMPLEMENTED") else f"not UNIMPLEMENTED: {told}"
    return "not UNIMPLEMENTED: OK"


def _read_pages(channel: grpc.Channel) -> str:
    lengths = [
        len(page)
        for page in channel.unary_stream("/stock.Stock/Pages", AS_IS, AS_IS)(b"4", timeout=DEADLINE_S)
    ]
    return "ok" if lengths == [len(PAGE)] * 4 else f"pages of {lengths} bytes"


def _send_past_answer(channel: grpc.Channel) -> str:
    got = channel.stream_unary("/stock.Stock/Early", AS_IS, AS_IS)(
        iter([bytes(16_384)] * 8), timeout=DEADLINE_S
    )
    return "ok" if got == b"early" else f"another answer: {got!r}"


def _cancelled(channel: grpc.Channel) -> str:
    call = channel.unary_stream("/stock.Stock/Pages", AS_IS, AS_IS)(b"64", timeout=DEADLINE_S)
    timer = threading.Timer(random.uniform(0, 0.005), call.cancel)
    timer.start()
    try:
        for _page in call:
            pass
    except grpc.RpcError as error:
        told = _told(error)
        return "ok" if told.startswith("StatusCode.CANCELLED") else told
    finally:
        timer.cancel()
    return "ok"


KINDS: Final[dict[str, Callable[[grpc.Channel], str]]] = {
    "unary": _unary,
    "missing": _missing,
    "pages": _read_pages,
    "early": _send_past_answer,
    "cancelled": _cancelled,
}


def call(target: str, count: int, flight: int) -> None:
    """Make `count` calls of each kind, `flight` of each at a time; print how they ended."""
    results = {name: Counter[str]() for name in KINDS}
    lock = threading.Lock()
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(len(KINDS) * flight) as threads:

        def one(name: str) -> None:
            try:
                outcome = KINDS[name](channel)
            except grpc.RpcError as error:
                outcome = _told(error)
            with lock:
                results[name][outcome] += 1

        def worker(name: str, share: int) -> None:
            for _index in range(share):
                one(name)

        for name in KINDS:
            for index in range(flight):
                threads.submit(worker, name, count // flight + (index < count % flight))
    print("result", json.dumps(results), flush=True)  # noqa: T201


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["call", target, count, flight]:
            call(target, int(count), int(flight))
        case _:
            sys.exit("usage: stock.py serve | call HOST:PORT COUNT FLIGHT")
