# SPDX-License-Identifier: MulanPSL-2.0
"""Echo servers as Python programs write them: servers.py KIND ADDRESS PORT."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import socketserver
import sys
from collections.abc import Callable, Coroutine
from typing import Any

CHILDREN = 3


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while piece := self.request.recv(1 << 16):
            self.request.sendall(piece)


class Forking(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64


def forking(address: str, port: int) -> None:
    """Serve each connection by a child of its own."""
    with Forking((address, port), Echo) as server:
        server.serve_forever(poll_interval=0.1)


def prefork(address: str, port: int) -> None:
    """Serve by children that all accept from the parent's listener."""
    with socketserver.ThreadingTCPServer((address, port), Echo) as server:
        server.socket.listen(64)
        children = []
        for _ in range(CHILDREN):
            if (pid := os.fork()) == 0:
                server.serve_forever()
            children.append(pid)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            os.waitpid(-1, 0)  # none ends by itself
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)


def coroutines(address: str, port: int, run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run) -> None:
    """Serve all in one event loop."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(echo, address, port, family=socket.AF_INET)
        await server.serve_forever()

    run(serve())


def libuv(address: str, port: int) -> None:
    """Serve all in one event loop, which is libuv's."""
    import uvloop

    coroutines(address, port, uvloop.run)


if __name__ == "__main__":
    kind, host, number = sys.argv[1:]
    {"forking": forking, "prefork": prefork, "asyncio": coroutines, "uvloop": libuv}[kind](host, int(number))
