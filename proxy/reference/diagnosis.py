"""Rows of the reference about the commands that look for what is wrong, from the tables that these use."""

from collections.abc import Iterator

from proxy.cli.checks.findings import CHECKS


def check_rows() -> Iterator[tuple[str, str, str, str]]:
    """A row for each check."""
    for name, check in CHECKS.items():
        yield f"`{name}`", check.group, check.about, check.hint
