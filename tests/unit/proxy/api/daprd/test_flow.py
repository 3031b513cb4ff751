"""Back-pressure of translated bodies."""

from proxy.api.daprd.flow import Credit, pieces


def test_more_is_asked_for_while_little_waits() -> None:
    acked: list[int] = []
    credit = Credit(acked.append)
    credit.sent(100)
    credit.came(90)
    assert acked == [90]
    credit.sent(500_000)
    credit.came(400_000)
    assert acked == [90]
    credit.left(100_000)
    assert acked == [90]
    credit.left(300_000)
    assert acked == [90, 400_000]


def test_what_is_for_nobody_is_acknowledged_at_once() -> None:
    acked: list[int] = []
    credit = Credit(acked.append)
    credit.sent(500_000)
    credit.came(7)
    credit.drop()
    credit.came(8)
    assert acked == [7, 8]


def test_pieces_are_the_whole_in_order() -> None:
    data = bytes(range(256)) * 500
    cut = list(pieces(data))
    assert b"".join(cut) == data
    assert max(map(len, cut)) <= 65_536
    assert list(pieces(b"x")) == [b"x"]
