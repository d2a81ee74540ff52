"""Serves the pages of a store to browsers of this machine, and nothing else to anybody else.

It binds the loopback interface alone, answers GET and HEAD of fixed paths, and requests that name
this machine: a page of elsewhere that resolves its own name to 127.0.0.1 (DNS rebinding) does not.
"""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.errors import BenchError
from bench.live.pages import Pages

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(localhost|127\.0\.0\.1)(:\d{1,5})?", re.IGNORECASE)
"""What a request may name; the port may be that of a tunnel."""
LOG = re.compile(r"/log/([0-9a-f]{20})")
IDLE_S = 10.0
"""Longest that a connection may take to say what it wants."""
_ALONE = "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; " + _ALONE
"""Of all pages but the report, which says itself that its own script may run and no other."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
REFRESH_S = {"/status": 3, "/report": 120}
"""Seconds after which a browser asks for a page again; the report keeps what its reader chose."""


class Server(ThreadingHTTPServer):
    """A server of `Pages`; ``port`` 0 takes a free one. BenchError if it cannot have the port."""

    daemon_threads = True

    def __init__(self, pages: Pages, port: int) -> None:
        self.pages = pages
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise BenchError(
                f"--port {port}: {error.strerror or error}; name another, or 0 for a free one"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def serve(self) -> None:
        """Serve until interrupted."""
        self.pages.start()
        self.serve_forever()

    def close(self) -> None:
        """Give the port back."""
        self.pages.close()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = IDLE_S
    server_version, sys_version = "bench", ""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # every other method
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    def _answer(self) -> None:
        named = self.headers.get_all("Host") or []
        if len(named) != 1 or not HOST.fullmatch(named[0].strip()):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        pages, path = self.server.pages, self.path.partition("?")[0]
        made = {"/": "frame", "/status": "status", "/report": "report"}
        if path in made:
            self._send(HTTPStatus.OK, getattr(pages, made[path]), "text/html", path)
            return
        asked = LOG.fullmatch(path)
        log = pages.log(asked[1]) if asked else None
        if log is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, log.encode(), "text/plain")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, path: str = "") -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if status == HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            status, body = HTTPStatus.NOT_MODIFIED, b""
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", _ALONE if path == "/report" else POLICY)
        if path in REFRESH_S:
            self.send_header("Refresh", str(REFRESH_S[path]))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if status in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED):
            self.send_header("ETag", tag)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Nothing of what was asked is in the answer."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._send(status, f"{status.value} {status.phrase}\n".encode(), "text/plain")

    def log_message(self, format: str, *arguments: Any) -> None:
        """A page that asks again and again would fill the terminal."""
