"""Dapr's tables between HTTP and gRPC, row by row."""

import pytest

from proxy.api.dapr.codes import as_metadata_name, code_of, phrase_of


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, 0),
        (204, 0),
        (299, 0),
        (301, 2),
        (304, 2),
        (400, 13),
        (401, 16),
        (403, 7),
        (404, 5),
        (405, 2),
        (408, 1),
        (409, 6),
        (412, 2),
        (418, 2),
        (429, 8),
        (499, 2),
        (500, 2),
        (501, 12),
        (502, 2),
        (503, 14),
        (504, 4),
        (999, 2),
    ],
)
def test_status_has_the_code_that_dapr_gives_it(status: int, code: int) -> None:
    assert code_of(status) == code


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (404, "Not Found"),
        (413, "Request Entity Too Large"),
        (414, "Request URI Too Long"),
        (416, "Requested Range Not Satisfiable"),
        (418, "I'm a teapot"),
        (422, "Unprocessable Entity"),
        (500, "Internal Server Error"),
        (299, ""),
        (999, ""),
    ],
)
def test_phrase_is_the_one_that_go_has(status: int, phrase: str) -> None:
    assert phrase_of(status) == phrase


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("content-type", "dapr-content-type"),
        ("date", "dapr-date"),
        ("cookie", "dapr-cookie"),
        ("set-cookie", "set-cookie"),
        ("server", "server"),
        ("x-app", "x-app"),
        ("authorization", "authorization"),
        ("grpc-status", "dapr-grpc-status"),
        ("grpc-accept-encoding", "dapr-grpc-accept-encoding"),
    ],
)
def test_permanent_fields_of_http_and_names_of_grpc_have_a_prefix(name: str, expected: str) -> None:
    assert as_metadata_name(name) == expected
