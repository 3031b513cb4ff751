"""An app that asks another through its sidecar: GET /name says who it is, GET /ask/<app-id> what the other says.

`python app.py NAME PORT`; the sidecar's port is DAPR_HTTP_PORT, as everywhere with Dapr.
"""

import http.client
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TIMEOUT_S = 20.0


def ask(app_id: str) -> tuple[int, str]:
    """Call GET /name of an app by Dapr's HTTP API."""
    sidecar = http.client.HTTPConnection("localhost", int(os.environ["DAPR_HTTP_PORT"]), timeout=_TIMEOUT_S)
    try:
        sidecar.request("GET", f"/v1.0/invoke/{app_id}/method/name")
        response = sidecar.getresponse()
        return response.status, response.read().decode()
    finally:
        sidecar.close()


class Handler(BaseHTTPRequestHandler):
    """GET /name, GET /ask/<app-id>."""

    name = "app"

    def do_GET(self) -> None:
        """Answer in plain text."""
        if self.path == "/name":
            self._answer(200, f"I am {self.name}\n")
        elif self.path.startswith("/ask/"):
            other = self.path.removeprefix("/ask/")
            try:
                status, text = ask(other)
            except OSError as error:
                status, text = 502, f"no sidecar: {error}"
            self._answer(status, f"{self.name} asked {other}: {text.strip()}\n")
        else:
            self._answer(404, "Try /name or /ask/orders.\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet."""


if __name__ == "__main__":
    Handler.name = sys.argv[1]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
