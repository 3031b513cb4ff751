"""`postern analyze` as CI runs it: a process of its own, which makes nothing in the runtime root."""

from pathlib import Path

from tests.integration.cli.conftest import Commands


async def test_what_a_sidecar_would_refuse_fails_before_it_runs(commands: Commands) -> None:
    folder = commands.folder / "ci"
    (folder / "app").mkdir(parents=True)
    (folder / "dapr.yaml").write_text(
        "version: 1\napps: [{appID: cart, appDirPath: app, configFilePath: ../c.yaml, command: [a]}]\n"
    )
    (folder / "c.yaml").write_text(
        "kind: Configuration\nmetadata: {name: c}\nspec: {accessControl: {defaultAction: maybe}}\n"
    )
    before = _held(commands.mesh.root)
    code, output = await commands.done("analyze", str(folder))
    assert code == 1
    assert "c.yaml:3: error PST0109: spec.accessControl.defaultAction: `maybe` is not an action" in output
    assert "2 files: 1 error" in output
    assert _held(commands.mesh.root) == before


def _held(root: Path) -> set[Path]:
    return set(root.rglob("*"))
