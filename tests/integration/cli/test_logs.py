"""`postern logs` of sidecars that were started in every way."""

import os
import signal
from datetime import UTC, datetime, timedelta

from tests.integration.cli.conftest import Commands

LISTENING = "listening on"


async def test_logs_of_several_sidecars_by_hand_come_in_the_order_of_time(commands: Commands) -> None:
    app = await commands.mesh.http_app()
    cart = await commands.mesh.sidecar("cart", app=app, flags=("--insecure-plaintext",))
    await commands.mesh.sidecar("web", flags=("--insecure-plaintext", "--log-as-json"))
    code, output = await commands.done("logs", "web", "cart")
    assert code == 0, output
    lines = [line for line in output.splitlines() if " | " in line]
    assert {line.split(" | ")[0].strip() for line in lines} == {"cart", "web"}
    assert lines[0].startswith("cart | time=")
    assert any(line.startswith("web  | {") for line in lines)
    starting = [line for line in lines if '"listening"' in line]
    assert [line.split(" | ")[0].strip() for line in starting] == ["cart", "web"]
    assert "cart: what its app writes is kept nowhere" in output
    assert "web: what its app writes" not in output  # it has none

    code, output = await commands.done("logs", "cart", "--sidecar", "--tail", "1")
    assert (code, len(output.splitlines()), output.strip() in cart.process.output) == (0, 1, True)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    code, output = await commands.done("logs", "cart", "--sidecar", "--since", later)
    assert (code, "is in the future" in output) == (2, True)
    code, output = await commands.done("logs", "cart", "--sidecar", "--since", "0s")
    assert (code, output.strip()) == (0, "no line is as new as --since asks for")
    code, output = await commands.done("logs", "cart", "--sidecar", "--since", "1h")
    assert (code, 'msg="listening"' in output) == (0, True)


async def test_lines_of_memory_are_followed_until_the_sidecars_end(commands: Commands) -> None:
    cart = await commands.mesh.sidecar("cart", flags=("--insecure-plaintext",))
    web = await commands.mesh.sidecar("web", flags=("--insecure-plaintext",))
    following = commands.start("logs", "cart", "web", "--sidecar", "-f", "--tail", "0")
    code = -1
    while code != 0 or "changed" not in following.output:
        # asked until it is heard: nothing says when following has begun
        code, _ = await commands.done("log-level", "cart", "debug")
        await commands.done("log-level", "cart", "info")
    await following.line(r"cart \| .*log level changed")
    await web.end()
    await following.line(r"web  \| .*shutting down")
    await following.line("web: its sidecar has ended")
    await cart.end()
    assert await following.ended(timeout_s=20.0) == 0


async def test_sidecar_of_a_single_run_and_of_a_file_are_told_together(commands: Commands) -> None:
    single = commands.run("web", "--app-port=0")
    await single.line(LISTENING)
    many = commands.run_file(
        """
        version: 1
        apps:
          - appID: cart
            appDirPath: .
            appPort: 0
            command: [PYTHON, APP_FILE]
        """
    )
    await many.line(LISTENING)
    code, output = await commands.done("logs", "web", "cart", "--tail", "50")
    assert code == 0, output
    assert "web  | time=" in output
    assert "cart | time=" in output
    assert "cart | listening on" in output
    assert "web: what its app writes is kept nowhere" in output
    assert "cart: what its app" not in output


async def test_files_that_were_full_are_read_as_well(commands: Commands) -> None:
    path = commands.folder / "cart.log"
    path.with_name("cart.log.1").write_text('time="2026-01-01T00:00:00Z" level=info msg="long ago"\n')
    await commands.mesh.sidecar("cart", flags=("--insecure-plaintext", f"--log-file={path}"))
    code, output = await commands.done("logs", "cart", "--sidecar")
    assert code == 0, output
    assert 'msg="long ago"' in output.splitlines()[0]
    assert 'msg="listening"' in output


async def test_missing_file_and_hung_sidecar_are_noted_and_the_others_shown(commands: Commands) -> None:
    path, lost = commands.folder / "cart.log", commands.folder / "lost.log"
    cart = await commands.mesh.sidecar("cart", flags=("--insecure-plaintext", f"--log-file={path}"))
    hung = await commands.mesh.sidecar("hung", flags=("--insecure-plaintext",))
    await commands.mesh.sidecar("web", flags=("--insecure-plaintext", f"--log-file={lost}"))
    lost.unlink()
    for sidecar in (cart, hung):
        os.kill(sidecar.process.pid, signal.SIGSTOP)
    try:
        code, output = await commands.done("logs", "cart", "hung", "web", "--sidecar")
        assert code == 3, output
        assert 'msg="listening"' in output  # of the file: nobody was asked
        assert "its sidecar does not answer: not within 2 s" in output
        assert f"web: the sidecar's log {lost}: No such file or directory" in output
        code, output = await commands.done("logs", "web", "hung", "--sidecar")
        assert (code, "listening" in output) == (1, False)
    finally:
        for sidecar in (cart, hung):
            os.kill(sidecar.process.pid, signal.SIGCONT)


async def test_app_of_a_run_file_without_a_command_has_no_log(commands: Commands) -> None:
    running = commands.run_file("version: 1\napps: [{appID: stranger, appDirPath: .}]\n")
    await running.line("sidecar on")
    code, output = await commands.done("logs", "stranger")
    assert (code, "level=info" in output, "No such file" in output) == (0, True, False)
    assert "what its app writes" not in output
    await running.end()
