"""What an answer says of the next attempt."""

from proxy.wire.pushback import Pushback, read_pushback
from tests.support.vectors import Text, Vector, octets, vectors


class Read(Vector, frozen=True, kw_only=True):
    headers: list[tuple[str, Text]]
    grpc: bool
    status: int
    now_s: float
    stops: bool
    least_s: float | None
    exactly_s: float | None


@vectors("pushback", "read", Read)
def test_answers_ask_for_later_attempts_or_none(vector: Read) -> None:
    headers = tuple((name.encode(), octets(data)) for name, data in vector.headers)
    wanted = None
    if vector.stops:
        wanted = Pushback(None)
    elif vector.least_s is not None:
        wanted = Pushback(vector.least_s, is_least=True)
    elif vector.exactly_s is not None:
        wanted = Pushback(vector.exactly_s)
    assert read_pushback(headers, grpc=vector.grpc, status=vector.status, now_s=vector.now_s) == wanted
