"""`postern config diff` and `postern config reload` of real sidecars."""

import json
import os
import re
import signal
from pathlib import Path

from tests.integration.cli.conftest import Commands

RESILIENCY = """\
kind: Resiliency
metadata: {name: mesh}
spec:
  policies:
    timeouts: {short: 2s}
  targets:
    apps: {cart: {timeout: short}}
"""


async def started(commands: Commands) -> Path:
    """The resources of a sidecar that runs."""
    file = commands.mesh.write("resources/r.yaml", RESILIENCY)
    await commands.mesh.sidecar("web", flags=("--insecure-plaintext", f"--resources-path={file.parent}"))
    return file


async def test_reload_tells_what_changed_and_puts_it_in_force(commands: Commands) -> None:
    file = await started(commands)
    code, output = await commands.done("config", "diff", "web")
    assert (code, "web.default: no difference" in output) == (0, True)
    file.write_text(RESILIENCY.replace("2s", "5s"))
    code, output = await commands.done("config", "reload", "web")
    assert code == 0, output
    code, status = await commands.done("status", "web", "-o", "json")
    rules = {row["target"]: row for row in json.loads(status)[0]["policies"]["targets"]}
    assert (code, rules["cart"]["timeoutS"]) == (0, 5.0)
    # The sidecar's own watching may have been first.
    assert (
        "what changed is in force now (generation 2)" in output
        or "already in force since generation 2" in output
    )
    assert f"~ {file}:5: Resiliency mesh: spec.policies.timeouts.short: 2s -> 5s" in output
    code, output = await commands.done("config", "reload", "-o", "json")
    (told,) = json.loads(output)
    assert (code, told["result"], told["faults"], told["generation"]) == (0, "unchanged", [], 2)
    assert [(one["before"], one["after"]) for one in told["changes"]] == [("2s", "5s")]
    code, output = await commands.done("config", "reload", "web")
    assert (code, "already in force since generation 2 (" in output) == (0, True), output
    assert f"~ {file}:5: Resiliency mesh: spec.policies.timeouts.short: 2s -> 5s" in output


async def test_faults_are_told_with_file_line_and_field_and_change_nothing(commands: Commands) -> None:
    file = await started(commands)
    file.write_text(RESILIENCY.replace("2s", "soon"))
    for verb in ("reload", "diff"):
        code, output = await commands.done("config", verb, "web")
        assert code == 1, output
        assert f"~ {file}:5: Resiliency mesh: spec.policies.timeouts.short: 2s -> soon" in output
        assert f"{file}:5: spec.policies.timeouts.short: " in output
        assert "what was in force stays so" in output
    code, output = await commands.done("config", "diff", "web", "-o", "json")
    (told,) = json.loads(output)
    assert (code, told["result"], told["generation"]) == (1, "refused", 1)
    assert (told["changes"][0]["before"], told["faults"][0]["line"]) == ("2s", 5)


async def test_sidecar_without_files_has_nothing_to_reload(commands: Commands) -> None:
    await commands.mesh.sidecar("web", flags=("--insecure-plaintext",))
    code, output = await commands.done("config", "reload", "web", "-o", "json")
    assert (code, json.loads(output)[0]["result"]) == (0, "nothing")


async def test_settings_of_a_run_file_that_differ_are_told(commands: Commands) -> None:
    text = """
        version: 1
        apps:
          - appID: cart
            appDirPath: .
            appPort: 0
            logLevel: warn
            env: {PLAIN: hunter2, GONE: hunter3}
            command: [PYTHON, APP_FILE]
        """
    running = commands.run_file(text, "--insecure-plaintext")
    await running.line("listening on", timeout_s=60.0)
    assert await commands.done("config", "diff", "cart") == (0, "cart.default: no difference")
    file = commands.folder / "dapr.yaml"
    file.write_text(file.read_text().replace("warn", "error"))
    code, output = await commands.done("config", "diff", "cart")
    assert (code, f"~ {file}:7 (logLevel): --log-level: warn -> error" in output) == (1, True)
    assert "started anew" in output
    file.write_text(
        file.read_text().replace("hunter2, GONE: hunter3", "hunter4, NEW: x").replace('app.py"', "app.py")
    )
    file.write_text(file.read_text().replace("app.py]", "app.py, more]"))
    code, output = await commands.done("config", "diff", "cart")
    assert code == 1, output
    assert f"~ {file}:8: env.PLAIN: a value that is not shown" in output
    assert f"+ {file}:8: env.NEW: a value that is not shown" in output
    assert f"- {file}: env.GONE: a value that is not shown" in output
    assert re.search(rf"~ {file}:9: command: .*app.py -> .*app.py more", output)
    assert (output.count("env."), "hunter" in output) == (3, False)
    file.write_text(file.read_text().replace("appID: cart", "appID: till"))
    code, output = await commands.done("config", "diff", "cart")
    assert (code, f"{file}: apps: the app cart, which runs, is no longer in the file" in output) == (1, True)
    file.write_text("apps: [")
    code, output = await commands.done("config", "diff", "cart", "-o", "json")
    (told,) = json.loads(output)
    assert (code, told["settings"], told["faults"][0]["path"]) == (1, [], str(file))
    assert "valid YAML" in told["faults"][0]["problem"]
    file.unlink()
    code, output = await commands.done("config", "diff", "cart")
    assert (code, "the run file has faults" in output, "null" in output) == (1, True, False)
    await running.end()


async def test_hung_sidecar_is_named_and_holds_nobody_up(commands: Commands) -> None:
    file = await started(commands)
    hung = await commands.mesh.sidecar("hung", flags=("--insecure-plaintext",))
    os.kill(hung.process.pid, signal.SIGSTOP)
    try:
        file.write_text(RESILIENCY.replace("2s", "5s"))
        for words in (("config", "reload"), ("config", "diff"), ("get", "all")):
            code, output = await commands.done(*words)
            assert code == 3, output
            assert re.search(r"hung.*its sidecar does not answer: not within \d+ s", output)
            assert "web" in output
    finally:
        os.kill(hung.process.pid, signal.SIGCONT)
