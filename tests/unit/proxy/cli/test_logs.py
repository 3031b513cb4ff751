"""`postern logs`: what stands before lines, and from when on."""

import pytest

from nameresolution.host_registry import Entry
from proxy.cli.errors import UsageError
from proxy.cli.log_sources import Kind, Source
from proxy.cli.logs import labels_of, moment


def source(app_id: str, kind: Kind, instance: str) -> Source:
    entry = Entry(app_id=app_id, instance=instance, peer_port=1)
    return Source(entry=entry, kind=kind, path=None)


def test_label_is_what_tells_sources_apart() -> None:
    app, sidecar = source("cart", "app", "1" * 32), source("cart", "sidecar", "1" * 32)
    other, web = source("cart", "sidecar", "2" * 32), source("web", "sidecar", "3" * 32)
    assert labels_of([sidecar]) == [""]
    assert labels_of([app, sidecar]) == ["app", "sidecar"]
    assert labels_of([sidecar, other]) == ["sidecar 11111111", "sidecar 22222222"]
    assert labels_of([app, sidecar, web]) == ["cart", "cart", "web"]
    assert labels_of([sidecar, other, web]) == ["cart 11111111", "cart 22222222", "web"]


def test_since_is_a_length_or_a_time() -> None:
    assert moment("10m", 1_000.0) == 400.0
    assert moment("2026-01-01T12:00:00Z", 2e9) == 1_767_268_800.0
    for text in ("soon", "10", "", "99999-01-01"):
        with pytest.raises(UsageError, match="expected a length"):
            moment(text, 0.0)
    for text in ("-5m", "2026-01-01T12:00:00Z"):
        with pytest.raises(UsageError, match=f"--since {text}: is in the future"):
            moment(text, 0.0)
