"""A small HTTP server: greets whoever asks, and knows where the key is."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Handler(BaseHTTPRequestHandler):
    """GET /greet/<name>, GET /key."""

    def do_GET(self) -> None:
        """Answer in plain text."""
        if self.path.startswith("/greet/"):
            self._answer(200, f"Hello, {unquote(self.path.removeprefix('/greet/'))}!\n")
        elif self.path == "/key":
            self._answer(200, "The key is under the mat.\n")
        else:
            self._answer(404, "Try /greet/Ada.\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("APP_PORT", "8080"))), Handler)
    print(f"hello listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
