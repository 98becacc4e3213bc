# SPDX-License-Identifier: MulanPSL-2.0
"""The process that serves an instance's metrics: python -m gazelled.metrics.server RUN_DIR LISTEN.

A process of its own, so that no reader of metrics can slow the supervisor down. It opens its socket as root and then is
nobody, with the group whose members may read the run directory. It ends with the supervisor that started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore

from gazelled.instance.run_dir import RunDir
from gazelled.metrics.exposition import CONTENT_TYPE, text

_READERS_MAX = 8  # at once; the others wait in the listener's queue
_READER_S = 10.0
_NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class Server(ThreadingHTTPServer):
    """Serves one instance at a TCP address or at the path of a UNIX socket."""

    daemon_threads = True

    def __init__(self, run_dir: RunDir, listen: str) -> None:
        self.run_dir = run_dir
        self.places = BoundedSemaphore(_READERS_MAX)
        path = listen.removeprefix("unix:")
        if path != listen:
            self.address_family = socket.AF_UNIX
            with suppress(FileNotFoundError):
                os.unlink(path)
            super().__init__(path, Handler)  # type: ignore[arg-type]  # a path is the address of such a socket
            os.chmod(path, 0o666)  # noqa: S103  what may be read there, status tells as well
        else:
            host, _, port = listen.rpartition(":")
            self.address_family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
            super().__init__((host.strip("[]"), int(port)), Handler)

    def server_bind(self) -> None:
        """Bind, without a look at any name service."""
        if self.address_family != socket.AF_UNIX:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "gazelled", 0

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Serve a reader in a thread, when there is a place for it."""
        self.places.acquire()
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Be that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a reader that went away."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics."""

    server: Server
    timeout = _READER_S
    protocol_version = "HTTP/1.0"
    server_version, sys_version = "gazelled", ""

    def do_GET(self) -> None:
        """Answer."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="only /metrics is here")
            return
        body = text(self.server.run_dir).encode()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what readers do is not the instance's log."""


def _become_nobody(run_dir: RunDir) -> None:
    """Give up root for a user who can do nothing but read what the run directory's group may."""
    if os.geteuid() == 0:
        gid = run_dir.path.stat().st_gid or _NOBODY
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def main(run_dir: str, listen: str, parent: str) -> int:
    """Serve until the supervisor ends us, or ends itself."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        server = Server(RunDir(Path(run_dir)), listen)
        _become_nobody(server.run_dir)
    except OSError as error:
        print(f"metrics: {listen}: {error.strerror}", flush=True)
        return 69
    if os.getppid() == int(parent):  # it has not ended before we asked to be told
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
