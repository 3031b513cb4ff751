"""Which failures are told in lines, and which need a traceback."""

import errno

from telemetry.failures import causes, leaves


def test_leaves_are_the_errors_inside_groups_each_once() -> None:
    one, same, two = ValueError("a"), ValueError("a"), KeyError("b")
    assert leaves(ExceptionGroup("x", [ExceptionGroup("y", [one, two]), same])) == [same, two]
    assert leaves(one) == [one]


def test_system_errors_name_the_file_and_the_reason() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/run/postern/registry")
    bare = OSError(errno.EMFILE, "Too many open files")
    told = causes(ExceptionGroup("x", [full, bare, OSError("odd")]), ())
    assert told == ["/run/postern/registry: No space left on device", "Too many open files", "odd"]


def test_expected_errors_are_told_and_others_ask_for_a_traceback() -> None:
    assert causes(KeyError("k"), (KeyError,)) == ["'k'"]
    assert causes(ExceptionGroup("x", [OSError("a"), KeyError("k")]), ()) is None
