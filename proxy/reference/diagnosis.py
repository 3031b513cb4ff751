"""Rows of the reference about the commands that look for what is wrong, from the tables that these use."""

from collections.abc import Iterator

from policies.analysis.codes import CODES
from proxy.cli.checks.findings import CHECKS


def check_rows() -> Iterator[tuple[str, str, str, str]]:
    """A row for each check."""
    for name, check in CHECKS.items():
        yield f"`{name}`", check.group, check.about, check.hint


def code_rows() -> Iterator[tuple[str, str, str]]:
    """A row for each code of the lint."""
    for code in sorted(CODES, key=lambda each: each.code):
        yield f"`{code.code}`", code.severity or "error, or warning where the file is taken", code.about
