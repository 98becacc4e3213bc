# SPDX-License-Identifier: MulanPSL-2.0
"""Echo servers as Python programs write them: servers.py KIND ADDRESS PORT."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

CHILDREN = 3


def echo(connection: socket.socket) -> None:
    """Send back what comes until the client has ended."""
    with connection:
        while piece := connection.recv(1 << 16):
            connection.sendall(piece)


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        echo(self.request)


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


def handing(address: str, port: int) -> None:
    """Serve by children to whom the parent, which accepts, hands each connection over a UNIX socket."""
    children = []
    for _ in range(CHILDREN):
        ours, theirs = socket.socketpair()
        if (pid := os.fork()) == 0:
            ours.close()
            serve_what_comes(theirs)
        theirs.close()
        children.append((pid, ours))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with socket.create_server((address, port), backlog=64) as listener:
            for number in itertools.count():
                connection, _ = listener.accept()
                with connection:
                    socket.send_fds(children[number % CHILDREN][1], [b"x"], [connection.fileno()])
    finally:
        for pid, _ in children:
            os.kill(pid, signal.SIGKILL)


def serve_what_comes(end: socket.socket) -> None:
    """Take connections from the parent and serve each by a thread."""
    while True:
        _, fds, _, _ = socket.recv_fds(end, 1, 1)
        threading.Thread(target=echo, args=(socket.socket(fileno=fds[0]),), daemon=True).start()


def coroutines(address: str, port: int, run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run) -> None:
    """Serve all in one event loop."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, address, port, family=socket.AF_INET)
        await server.serve_forever()

    run(serve())


def libuv(address: str, port: int) -> None:
    """Serve all in one event loop, which is libuv's."""
    import uvloop

    coroutines(address, port, uvloop.run)


if __name__ == "__main__":
    kind, host, number = sys.argv[1:]
    kinds = {"forking": forking, "prefork": prefork, "handing": handing, "asyncio": coroutines, "uvloop": libuv}
    kinds[kind](host, int(number))
