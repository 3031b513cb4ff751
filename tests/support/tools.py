"""Programs of the system that some tests call."""

import shutil

import pytest


def tool(name: str) -> str:
    """The program, or a skip that says what is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
