"""Documents in canonical form."""

import pytest
import yaml

from policies.errors import DocumentError
from proxy.cli.formatting import UnformattableError, formatted

MESSY = """\
# The shop's rules.

spec:
      # who is who
      targets:
          apps:
              cart: {timeout: short}   # the slow one
              # the last word

      policies:


          timeouts:
              short: 2s
          retries:
              often:
                  maxRetries: 3
                  policy: constant


metadata:
    name: mesh
kind: Resiliency   # ours
apiVersion: dapr.io/v1alpha1
# the end
"""
TIDY = """\
# The shop's rules.

apiVersion: dapr.io/v1alpha1
kind: Resiliency   # ours

metadata:
  name: mesh
spec:
  policies:
    timeouts:
      short: 2s
    retries:
      often:
        policy: constant
        maxRetries: 3
  # who is who
  targets:
    apps:
      cart: {timeout: short}   # the slow one
      # the last word
# the end
"""


def test_keys_are_in_the_order_of_the_schema_and_comments_stay_with_theirs() -> None:
    made = formatted(MESSY)
    assert yaml.safe_load(made) == yaml.safe_load(MESSY)
    assert made == TIDY
    assert formatted(made) == made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", ""),
        ("# only a comment\n", "# only a comment\n"),
        ("b: 1\na: 2\n", "b: 1\na: 2\n"),
        ("a:\n    - 1\n    -   x: 1\n        z: 2\n", "a:\n  - 1\n  - x: 1\n    z: 2\n"),
        ("a:\n- 1\n# c\n- 2  # d\n", "a:\n  - 1\n  # c\n  - 2  # d\n"),
        ("a:\n- # c\n  x: 1\n", "a:\n  # c\n  - x: 1\n"),
        ("a:\n- - 1\n", None),
        ("a: |\n    one\n      two\n\n    three\nb: 1\n", "a: |\n  one\n    two\n\n  three\nb: 1\n"),
        ("a: |+\n    one\n\n\nb: 1\n", "a: |+\n  one\n\n\nb: 1\n"),
        ("a: >-\n    one\n    two\n", "a: >-\n  one\n  two\n"),
        ("a: 'one\n\n      two'\n", "a: 'one\n\n  two'\n"),
        ("a:\n    'one'\n", "a: 'one'\n"),
        ("a: [1,\n      2] # c\n", "a: [1,\n  2] # c\n"),
        ("a:   # c\n    b: 1\n", "a:   # c\n  b: 1\n"),
        ("a:\nb:  # c\n", "a:\nb: # c\n"),
        ("a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("\ufeffa: 1\n", "a: 1\n"),
        ("---\na: 1\n---\n\nb: 2\n", "---\na: 1\n---\nb: 2\n"),
        ("a: &x 1\nb: *x\n", None),
        ("a: !!str 1\n", None),
        ("? a\n: 1\n", None),
        ("a: |2\n    one\n", None),
        ("just text\n", "just text\n"),
    ],
)
def test_layout(text: str, made: str | None) -> None:
    if made is None:
        with pytest.raises(UnformattableError):
            formatted(text)
        return
    assert formatted(text) == made
    assert formatted(made) == made


def test_run_file_has_apps_with_their_names_first() -> None:
    made = formatted("apps:\n- command: [x]\n  logLevel: warn\n  appDirPath: .\n  appID: cart\nversion: 1\n")
    assert made == (
        "version: 1\napps:\n  - appID: cart\n    appDirPath: .\n    command: [x]\n    logLevel: warn\n"
    )


def test_unknown_keys_stay_in_their_order_behind_the_others() -> None:
    made = formatted("zzz: 1\nkind: Traffic\naaa: 2\n")
    assert made == "kind: Traffic\nzzz: 1\naaa: 2\n"


def test_what_is_no_yaml_is_told_with_its_place() -> None:
    with pytest.raises(DocumentError, match=r":3:1"):
        formatted("a: 1\nb: [\n")
