"""The shape of the repository: what lies at the top, who imports whom, and how tests may not wait."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("proxy", "nameresolution", "sentry", "policies", "telemetry")
FOLDERS = {*PACKAGES, "tests", "examples", ".ci", ".github"}
FILES = {
    *(".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *(
        "pyproject.toml",
        "setup.py",
    ),  # setup.py: an extension that may be left out can't be declared elsewhere
}
ACTIONLINT = ROOT / ".cache" / "stock" / "actionlint"
# Test modules without a module of their own name, and why.
WITHOUT_A_SOURCE = {
    "tests/unit/test_layout.py": "about the repository",
    "tests/unit/proxy/cli/test_commands.py": "every command of `proxy.cli.app`, over the modules behind it",
    "tests/unit/proxy/wire/test_edit_headers.py": "`edits.edit_headers`, beside the rest of `edits`",
    "tests/unit/policies/rules/test_decision_table.py": "the table of the access rules' decisions, over several modules",
}
# Modules beyond 600 lines, and why they are not cut.
LONG: dict[str, str] = {}
# Pauses of a given length in tests, with their reason. Anything else waits for an event, turns the clock, or polls under a deadline.
PAUSES = {
    "tests/integration/mesh/test_resiliency.py": "a third attempt must not come: only time can show that",
}
# Limits of real time of a second or less, with the reason why no event, turned clock or longer limit would do. A reason that says "early"
# tells why a busy machine fails no test.
SHORT_LIMITS = {
    "tests/conformance/test_backpressure.py": "that nobody takes a byte shows in time alone; an early end leaves less written",
    "tests/conformance/test_churn.py": "a pace, not a limit: how often identities change",
    "tests/conformance/test_floods.py": "a pace, not a limit: between the bytes of a slow head",
    "tests/conformance/test_liveness.py": "a pace, not a limit: between the bytes of a slow body",
    "tests/integration/mesh/test_own_api.py": "a call must not get through: only time can show that; an early end asks less",
    "tests/integration/mesh/test_wire_safety.py": "a pace, not a limit: between the bytes of a slow head",
    "tests/integration/nameresolution/test_mdns.py": "no answer must come: only time can show that; an early end asks less",
    "tests/integration/proxy/test_http1_sockets.py": "that a writer is stuck shows in time alone; an early end asks less",
}
# Where real processes are asked over and over: only there may a loop pause.
POLLING = ("tests/integration/", "tests/conformance/", "tests/support/", "tests/chaos/", "tests/soak/")


def tracked() -> list[str]:
    """Every file that git knows; skips where this is no checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout: an unpacked archive may hold files of the user's own")
    return [name for name in listed.stdout.decode().split("\0") if name]


def packages() -> Iterator[Path]:
    """Every package of ours that holds modules."""
    for top in PACKAGES:
        for init in sorted((ROOT / top).rglob("__init__.py")):
            yield init.parent


def modules(folder: Path) -> Iterator[Path]:
    """Every module in a folder and below, generated ones left out."""
    yield from (path for path in sorted(folder.rglob("*.py")) if not path.name.endswith("_pb2.py"))


def test_top_level_holds_what_it_may_and_no_more() -> None:
    names = tracked()
    folders = {name.partition("/")[0] for name in names if "/" in name}
    files = {name for name in names if "/" not in name}
    assert folders <= FOLDERS
    assert files <= FILES
    assert {*PACKAGES, "tests", "examples"} <= folders


@pytest.mark.parametrize("name", PACKAGES)
def test_room_says_what_it_owns_and_what_can_go_wrong(name: str) -> None:
    assert (ROOT / name / "README.md").stat().st_size > 200
    assert (ROOT / name / "errors.py").is_file()


@pytest.mark.parametrize("package", list(packages()), ids=lambda path: str(path.relative_to(ROOT)))
def test_package_has_a_docstring_and_no_code_in_its_root(package: Path) -> None:
    body = ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


@pytest.mark.parametrize("name", PACKAGES)
def test_exceptions_that_others_handle_live_in_errors(name: str) -> None:
    """A class that another module imports to catch it belongs into the tree; one that stays in its module may live there."""
    exported = [path for path in modules(ROOT / name) if path.name == "errors.py"]
    assert exported
    for path in exported:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                assert ast.get_docstring(node), f"{path.name}: {node.name} says nothing of itself"


@pytest.mark.parametrize("name", PACKAGES)
def test_module_and_what_is_public_in_it_say_what_they_are(name: str) -> None:
    silent = []
    for path in modules(ROOT / name):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        where = path.relative_to(ROOT)
        if not ast.get_docstring(tree):
            silent.append(str(where))
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{where}: {node.name}")
    assert silent == []


@pytest.mark.parametrize("name", PACKAGES)
def test_module_is_no_longer_than_one_can_read(name: str) -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in modules(ROOT / name)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 600
    }
    assert long.keys() <= LONG.keys(), long


def test_unit_tests_mirror_the_source() -> None:
    strangers = []
    for path in sorted((ROOT / "tests" / "unit").rglob("test_*.py")):
        where = path.relative_to(ROOT / "tests" / "unit")
        if str(path.relative_to(ROOT)) in WITHOUT_A_SOURCE or where.parts[0] in {"bench", "examples"}:
            continue
        folder, stem = ROOT / where.parent, path.stem.removeprefix("test_")
        # named after a module, or after a family of them: http1_pipelining stands beside http1_server
        sources = [*folder.rglob("*.py"), *folder.rglob("*.pyi")]
        families = {source.stem.strip("_").partition("_")[0] for source in sources}
        if stem.partition("_")[0] not in families:
            strangers.append(str(where))
    assert strangers == []


def test_import_directions_hold() -> None:
    """The contracts in pyproject.toml, by import-linter's own command in a process of its own."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("there is no pyproject.toml here: the contracts are written there")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not ACTIONLINT.exists(), reason="actionlint is not built: install Go, then make stock")
def test_workflows_of_github_are_sound() -> None:
    found = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert found
    done = subprocess.run(
        [ACTIONLINT, *found], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _pauses(path: Path) -> Iterator[tuple[int, bool]]:
    """Lines with a `sleep` of a written-down length, and whether they stand in a loop: there, something else is waited for."""
    loops = (ast.While, ast.For, ast.AsyncFor)
    todo: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), False)]
    while todo:
        node, in_loop = todo.pop()
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("sleep") and _is_length(node):
            yield node.lineno, in_loop
        todo += [(child, in_loop or isinstance(node, loops)) for child in ast.iter_child_nodes(node)]


def _is_length(call: ast.Call) -> bool:
    """A number or a constant. Zero only lets others run; a variable is what the test is about."""
    (argument,) = call.args
    if isinstance(argument, ast.Constant):
        return isinstance(argument.value, int | float) and argument.value > 0
    return isinstance(argument, ast.Name) and argument.id.isupper()


def test_no_test_sleeps_until_something_may_have_happened() -> None:
    found: dict[str, list[int]] = {}
    for path in modules(ROOT / "tests"):
        name = str(path.relative_to(ROOT))
        if name.startswith("tests/bench/") or name in PAUSES:
            continue
        for line, in_loop in _pauses(path):
            if not (in_loop and name.startswith(POLLING)):
                found.setdefault(name, []).append(line)
    assert found == {}


def test_every_allowed_pause_is_still_there() -> None:
    gone = [name for name in PAUSES if not list(_pauses(ROOT / name))]
    assert gone == []


def _short_limits(path: Path) -> Iterator[int]:
    """Lines where at most a second may pass: `asyncio.timeout(0.5)` or `time.monotonic() - began < 0.5`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="timeout" | "wait_for"), args=[*_, ast.Constant(value=limit)]
            ):
                timed = True
            case ast.Call(
                func=ast.Attribute(attr="wait"), keywords=[ast.keyword(value=ast.Constant(value=limit))]
            ):
                timed = True
            case ast.Compare(ops=[*_, ast.Lt() | ast.LtE()], comparators=[*_, ast.Constant(value=limit)]):
                timed = "monotonic()" in ast.unparse(node) or "perf_counter()" in ast.unparse(node)
            case _:
                continue
        if timed and isinstance(limit, int | float) and 0 < limit <= 1:
            yield node.lineno


def test_no_test_fails_because_a_machine_is_busy() -> None:
    found = {
        name: lines
        for path in modules(ROOT / "tests")
        if (name := str(path.relative_to(ROOT))) not in SHORT_LIMITS and not name.startswith("tests/bench/")
        if (lines := list(_short_limits(path)))
    }
    assert found == {}


def test_every_allowed_short_limit_is_still_there() -> None:
    gone = [name for name in SHORT_LIMITS if not list(_short_limits(ROOT / name))]
    assert gone == []
