"""Every flag has a row, with what decided it."""

from pathlib import Path
from typing import Any

import pytest

from proxy.settings.flags import FLAGS
from proxy.settings.origins import ROWS, VARIABLES, effective
from proxy.settings.parsing import parse

# Flags that say nothing of the sidecar itself, or the same as another row.
OTHERS = {
    *("dapr-http-max-request-size", "dapr-http-read-buffer-size", "components-path", "app-ssl", "mode"),
    *("insecure-plaintext", "run-command", "run-template", "run-template-name", "app-log", "sidecar-log"),
    *("cli-pid", "ready-fd"),
}


def told(tmp_path: Path, *flags: str, **env: str) -> dict[str, dict[str, Any]]:
    settings = parse(["--app-id", "cart", "--runtime-path", str(tmp_path / "root"), *flags], env)
    return {row["name"]: row for row in effective(settings, {"http": 3501})}


def test_every_flag_has_a_row() -> None:
    built = {flag.name for flag in FLAGS.values() if not flag.kind.startswith("unbuilt")}
    assert {row.flag for row in ROWS if row.flag} == built - OTHERS
    assert set(VARIABLES) <= built


def test_flag_goes_before_variable_before_default(tmp_path: Path) -> None:
    rows = told(tmp_path, "--engine=portable", POSTERN_ENGINE="native", NAMESPACE="shop")
    assert rows["engine"] == {"name": "engine", "value": "portable", "source": "flag", "by": "--engine"}
    assert rows["namespace"] == {
        "name": "namespace",
        "value": "shop",
        "source": "environment",
        "by": "NAMESPACE",
    }
    assert rows["drain"] == {"name": "drain", "value": 2.0, "source": "default", "by": "--drain"}


def test_file_is_named_so_that_others_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").touch()
    assert told(tmp_path, "--config=c.yaml")["config"]["value"] == [str(tmp_path / "c.yaml")]


def test_port_is_the_one_that_was_taken(tmp_path: Path) -> None:
    rows = told(tmp_path, "--dapr-http-port=0")
    assert (rows["dapr-http-port"]["value"], rows["dapr-http-port"]["source"]) == (3501, "flag")
    assert rows["dapr-public-port"]["value"] is None


def test_older_flag_is_named_where_it_decided(tmp_path: Path) -> None:
    (tmp_path / "res").mkdir()
    rows = told(tmp_path, "--insecure-plaintext", f"--components-path={tmp_path / 'res'}", "--upstream=pay=0")
    assert rows["enable-mtls"] == {
        "name": "enable-mtls",
        "value": False,
        "source": "flag",
        "by": "--insecure-plaintext",
    }
    assert rows["resources-path"]["by"] == "--components-path"
    assert rows["upstream"]["value"] == ["pay=0"]


def test_secrets_are_told_as_set_or_unset(tmp_path: Path) -> None:
    rows = told(tmp_path, DAPR_API_TOKEN="hunter2")
    assert rows["DAPR_API_TOKEN"] == {
        "name": "DAPR_API_TOKEN",
        "value": "(set)",
        "source": "environment",
        "by": "DAPR_API_TOKEN",
    }
    assert rows["APP_API_TOKEN"]["value"] == "(unset)"
    assert "hunter2" not in str(rows)
