# SPDX-License-Identifier: MulanPSL-2.0
"""A small HTTP server: GET sends a file, PUT answers with the SHA-256 of what came.

http_files.py ADDRESS PORT DIRECTORY
"""

from __future__ import annotations

import hashlib
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            if not piece:
                break  # the digest will say that something is missing
            digest.update(piece)
            left -= len(piece)
        answer = digest.hexdigest().encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    address, port, directory = sys.argv[1:]
    ThreadingHTTPServer.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ThreadingHTTPServer((address, int(port)), partial(Handler, directory=directory)) as server:
        print("serving", flush=True)
        server.serve_forever()
