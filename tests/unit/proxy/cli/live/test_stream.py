"""What one page has not been sent yet."""

import json
from typing import Any

from proxy.cli.live.stream import MAX_WAITING, Mailbox


def read(data: bytes) -> list[tuple[str, Any]]:
    found = []
    for part in data.decode().split("\n\n")[:-1]:
        name, body = part.split("\n")
        found.append((name.removeprefix("event: "), json.loads(body.removeprefix("data: "))))
    return found


def test_only_the_newest_picture_is_sent() -> None:
    box = Mailbox()
    box.picture()
    box.picture()
    assert read(box.take({"at": 2})) == [("mesh", {"at": 2})]
    assert box.take({"at": 2}) == b""


def test_calls_beyond_the_limit_are_dropped_oldest_first_and_counted() -> None:
    box = Mailbox()
    for number in range(MAX_WAITING + 5):
        box.call({"number": number})
    ((name, told),) = read(box.take(None))
    assert (name, len(told["events"]), told["dropped"]) == ("calls", MAX_WAITING, 5)
    assert told["events"][0] == {"number": 5}
    box.call({})
    assert read(box.take(None)) == [("calls", {"events": [{}], "dropped": 0})]


def test_line_breaks_and_marks_in_what_is_told_end_no_event() -> None:
    box = Mailbox()
    box.log({"lines": ["a\n\ndata: b\r\u2028\ud800"]})
    ((_, told),) = read(box.take(None))
    assert told["events"][0]["lines"] == ["a\n\ndata: b\r\u2028\ud800"]
