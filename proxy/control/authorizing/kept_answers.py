"""Answers of one authorizer that still hold for equal questions, bounded in number and in bytes: callers choose what is asked. Pure."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec import msgpack

from proxy.control.authorizing.question import Question
from proxy.control.authorizing.verdicts import Denied, Verdict

MAX_ANSWERS: Final = 4_096
MAX_BYTES: Final = 8_388_608
_ANSWER_BYTES: Final = 512  # what one takes beside its fields and body


class _Answer(NamedTuple):
    verdict: Verdict
    until: float
    size_bytes: int


class KeptAnswers:
    """Mutable state: answers by a digest of their question, those used last at the end, and how many bytes they take."""

    def __init__(self, for_s: float, clock: Callable[[], float]) -> None:
        """for_s: how long an answer holds; 0: none is kept."""
        self._for_s = for_s
        self._clock = clock
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, asked: Question) -> Verdict | None:
        """An answer that still holds."""
        if not self._for_s:
            return None
        key = _digest(asked)
        found = self._answers.get(key)
        if found is None or found.until < self._clock():
            return None
        self._answers.move_to_end(key)
        return found.verdict

    def keep(self, asked: Question, verdict: Verdict) -> None:
        """Let it hold for equal questions."""
        if not self._for_s:
            return
        key, size = _digest(asked), _size(verdict)
        self._drop(key)
        self._answers[key] = _Answer(verdict, self._clock() + self._for_s, size)
        self._bytes += size
        while len(self._answers) > MAX_ANSWERS or self._bytes > MAX_BYTES:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: bytes) -> None:
        dropped = self._answers.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped.size_bytes


def _digest(asked: Question) -> bytes:
    """Stands for the whole question, however long its headers are."""
    return hashlib.sha256(msgpack.encode(asked)).digest()


def _size(verdict: Verdict) -> int:
    if isinstance(verdict, Denied):
        return (
            _ANSWER_BYTES + len(verdict.body) + sum(len(name) + len(data) for name, data in verdict.headers)
        )
    return _ANSWER_BYTES + sum(len(one.name) + len(one.data) for one in (*verdict.request, *verdict.reply))
