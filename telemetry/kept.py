"""Spans of calls that were not sampled and are kept for how they ended: as many as memory and a rate allow."""

from collections import deque
from collections.abc import Callable, Iterator

from telemetry.spans import Span

# An empty span with its context, detail and one attempt, and what each text costs beside its characters: by `sys.getsizeof`, CPython 3.11.
_SPAN_BYTES = 1_000
_TEXT_BYTES = 60


class KeptSpans:
    """The latest of such spans. Mutable state: the spans, their bytes, and how many may be taken now; `refused` counts those beyond."""

    def __init__(self, most: int, most_bytes: int, per_s: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._per_s = per_s
        self._clock = clock
        self._left, self._since = per_s, clock()
        self._spans: deque[tuple[Span, int]] = deque()
        self._bytes = 0
        self.refused = 0

    def __iter__(self) -> Iterator[Span]:
        return (span for span, _ in self._spans)

    def take(self, span: Span) -> bool:
        """Keep the span, and let go of the oldest where there is no room; False: there were too many in this second."""
        now = self._clock()
        self._left = min(self._per_s, self._left + (now - self._since) * self._per_s)
        self._since = now
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        size = bytes_of(span)
        self._spans.append((span, size))
        self._bytes += size
        while len(self._spans) > 1 and (len(self._spans) > self._most or self._bytes > self._most_bytes):
            self._bytes -= self._spans.popleft()[1]
        return True


def bytes_of(span: Span) -> int:
    """About how much memory a span holds."""
    texts = [
        span.name,
        span.error or "",
        *(text for _, text in span.events),
        *(text for _, text in span.attributes),
    ]
    tried = () if span.detail is None else span.detail.tried
    texts += (text for attempt in tried for text in (attempt.endpoint, attempt.detail))
    return _SPAN_BYTES + sum(map(len, texts)) + _TEXT_BYTES * len(texts)
