"""The apps of README.md on Flask (by waitress) and Starlette (by uvicorn), each on a free port of loopback."""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from urllib.parse import quote

import flask
import uvicorn
import waitress
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

FILES = sys.argv[1]


def operation(route: str, value: str = "") -> dict[str, str]:
    """The header that says what was reached."""
    return {"operation": f"{route} {quote(value)}".strip()}


def on_flask() -> flask.Flask:
    app = flask.Flask("routers", static_folder=FILES, static_url_path="/files")

    def to(route: str, rule: str, value: Callable[..., str] = lambda: "") -> None:
        def view(**given: str) -> flask.Response:
            return flask.Response("", headers=operation(route, value(**given)))

        app.add_url_rule(rule, rule, view)

    to("open", "/open")
    to("secret", "/item/secret")
    to("item", "/item/<given>", lambda given: given)
    to("box", "/box/<given>", lambda given: given)
    to("nested", "/shop/<cart>/items/<given>", lambda cart, given: f"{cart}/{given}")
    to("admin", "/admin")
    to("admin", "/admin/<path:rest>", lambda rest: rest)
    return app


def on_starlette() -> Starlette:
    def to(route: str, path: str, value: Callable[[dict[str, str]], str] = lambda _: "") -> Route:
        async def endpoint(request: Request) -> Response:
            return Response(headers=operation(route, value(request.path_params)))

        return Route(path, endpoint)

    return Starlette(
        routes=[
            to("open", "/open"),
            to("secret", "/item/secret"),
            to("item", "/item/{id}", lambda given: given["id"]),
            to("box", "/box/{id}", lambda given: given["id"]),
            to("nested", "/shop/{cart}/items/{id}", lambda given: f"{given['cart']}/{given['id']}"),
            to("admin", "/admin"),
            to("admin", "/admin/{rest:path}", lambda given: given["rest"]),
            Mount("/files", StaticFiles(directory=FILES)),
        ]
    )


def listening(name: str) -> socket.socket:
    """A listener, told to who waits for it: what connects before the app is ready waits in its backlog."""
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"serving {name} {listener.getsockname()[1]}\n")
    sys.stdout.flush()
    return listener


def main() -> None:
    server = waitress.create_server(on_flask(), sockets=[listening("flask")], threads=2)
    threading.Thread(target=server.run, daemon=True).start()
    config = uvicorn.Config(on_starlette(), http="h11", log_level="critical", lifespan="off")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening("starlette")]))


if __name__ == "__main__":
    main()
