"""`postern log-level` on a running sidecar."""

import json

from tests.integration.cli.conftest import Commands


async def test_log_level_is_told_changed_for_a_while_and_reset(commands: Commands) -> None:
    web = await commands.mesh.sidecar("web")
    code, output = await commands.done("log-level", "web", "debug", "--for", "10m", "-o", "json")
    assert code == 0, output
    (told,) = json.loads(output)
    assert (told["app"], told["level"], told["configured"]) == ("web", "debug", "info")
    assert told["until"]
    await web.process.line('msg="log level changed"')
    code, output = await commands.done("log-level", "web")
    assert (code, "debug" in output) == (0, True)
    code, output = await commands.done("config", "show", "web")
    assert "postern log-level" in output
    code, output = await commands.done("log-level", "web", "reset", "-o", "json")
    assert json.loads(output)[0]["level"] == "info"
    code, output = await commands.done("log-level", "web", "loud")
    assert (code, "expected one of debug" in output) == (2, True)
    code, output = await commands.done("log-level", "nobody", "debug")
    assert (code, "no such app" in output) == (1, True)
