"""A sidecar's log lines, shortened for a terminal."""

import pytest

from proxy.cli.loglines import Shortened, Weight, shorten

HEAD = 'time="2026-01-02T03:04:05.000000006Z"'
TAIL = 'scope=postern type=log ver="0.1.0"'


@pytest.mark.parametrize(
    ("line", "text", "weight"),
    [
        (
            f'{HEAD} level=info msg="listening" app_id=a grpc=1 http=2 instance=vm {TAIL}',
            "listening  grpc=1  http=2",
            "quiet",
        ),
        (f"{HEAD} level=info msg=serving app_id=a {TAIL}", "serving", "quiet"),
        (
            f'{HEAD} level=warning msg="access denied" decision="policy=- rule=-" {TAIL}',
            'warning: access denied  decision="policy=- rule=-"',
            "warning",
        ),
        (f'{HEAD} level=error msg="a \\"b\\" c" reason="x\\ny"', 'error: a "b" c  reason="x\\ny"', "error"),
        (f'{HEAD} level=fatal msg="one\\ntwo"', "error: one\\ntwo", "error"),
        (f'{HEAD} level=debug msg="x" endpoint=', "x", "quiet"),
    ],
)
def test_shorten_says_what_happened_first(line: str, text: str, weight: Weight) -> None:
    assert shorten(line) == Shortened(text=text, weight=weight)


@pytest.mark.parametrize(
    "line", ["", "hello", "level=info msg=x", 'time="x" level=info', "postern sidecar: x: no", '{"msg":"x"}']
)
def test_shorten_leaves_other_lines_alone(line: str) -> None:
    assert shorten(line) is None
