"""`postern get` of real sidecars."""

import json

from tests.integration.cli.conftest import Commands

RESOURCES = """\
kind: Resiliency
metadata: {name: mesh}
---
kind: HTTPEndpoint
metadata: {name: bank}
scopes: [web]
spec:
  baseUrl: http://127.0.0.1:9
  headers: [{name: authorization, value: hunter2}]
"""


async def test_resources_are_told_with_their_apps_and_files(commands: Commands) -> None:
    mesh = commands.mesh
    file = mesh.write("resources/r.yaml", RESOURCES)
    configuration = mesh.write("c.yaml", "kind: Configuration\nmetadata: {name: shop}\nspec: {}\n")
    code, output = await commands.done("get", "all")
    assert (code, "no sidecar runs in" in output) == (0, True)
    shared = ("--insecure-plaintext", f"--resources-path={file.parent}")
    await mesh.sidecar("web", flags=(*shared, f"--config={configuration}"))
    await mesh.sidecar("cart", flags=shared)

    code, output = await commands.done("get", "resiliency", "-o", "json")
    (row,) = json.loads(output)
    assert (code, row["name"], row["apps"], row["path"], row["line"]) == (
        0,
        "mesh",
        ["cart", "web"],
        str(file),
        1,
    )
    code, output = await commands.done("get", "httpendpoints", "-o", "yaml")
    assert (code, "- web" in output, "hunter2" in output, "- cart" in output) == (0, True, False, False)
    code, output = await commands.done("get", "all", "-o", "name")
    assert output.split() == ["configuration/shop", "httpendpoint/bank", "resiliency/mesh"]
    code, output = await commands.done("get", "configurations")
    assert output.split()[:5] == ["KIND", "NAME", "APPS", "FILE", "Configuration"]
    assert "c.yaml:1" in output
    code, output = await commands.done("get", "configurations", "--app-id", "cart")
    assert (code, output) == (0, "no sidecar here has configurations in force")
    code, output = await commands.done("get", "resiliency", "nosuch")
    assert (code, output) == (0, "no resiliency named nosuch; in force: mesh")
    file.write_text(RESOURCES.replace("mesh", "renamed").replace("kind: HTTPEndpoint", "kind: ["))
    code, output = await commands.done("get", "resiliency", "mesh", "-o", "name")
    assert (code, output.strip()) == (0, "resiliency/mesh")
    assert (await commands.done("get", "nothing"))[0] == 2
