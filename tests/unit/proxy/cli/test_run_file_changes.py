"""What a new start by a run file would change of an app's environment."""

from proxy.cli.run_file_changes import env_changes


def told(
    written: dict[str, str], app: dict[str, str] | None, command: dict[str, str] | None = None
) -> list[tuple[str, bool, bool]]:
    found = env_changes(written, app, command)
    return [(one["name"], one["before"] is not None, one["after"] is not None) for one in found]


def test_variables_are_told_by_name_and_without_values() -> None:
    app = {"SAME": "1", "OTHER": "hunter2", "GONE": "1", "HOME": "/"}
    written = {"SAME": "1", "OTHER": "hunter3", "NEW": "1"}
    assert told(written, app, {"HOME": "/"}) == [
        ("env.OTHER", True, True),
        ("env.NEW", False, True),
        ("env.GONE", True, False),
    ]
    assert "hunter" not in repr(env_changes(written, app, {"HOME": "/"}))


def test_what_postern_or_python_sets_is_no_change_and_unknown_environments_tell_nothing() -> None:
    given = {
        "DAPR_HTTP_PORT": "1",
        "APP_ID": "a",
        "CART_ADDR": "localhost:1",
        "LC_CTYPE": "C.UTF-8",
        "PORT": "2",
    }
    assert told({}, given, {"HOME": "/"}) == []
    assert told({"PORT_OF_APP": "${APP_PORT}"}, {"PORT_OF_APP": "8080"}, {"HOME": "/"}) == []
    assert told({"A": "1"}, None) == []
    assert told({}, {"A": "1"}) == []
