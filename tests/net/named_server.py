# SPDX-License-Identifier: MulanPSL-2.0
"""A server that answers everybody with its name, by TCP and UDP, and tells where they say they come from.

named_server.py NAME ADDR PORT: prints "NAME serves tcp" and "NAME serves udp" for what it got.
"""

from __future__ import annotations

import socket
import sys
import threading


def serve_tcp(name: str, listener: socket.socket) -> None:
    """Answer each connection and end it."""
    while True:
        connection, peer = listener.accept()
        with connection:
            print(f"peer {peer[0]}:{peer[1]} {connection.getpeername()[0]}", flush=True)
            try:
                connection.sendall(name.encode())
            except OSError:
                continue


def serve_udp(name: str, datagrams: socket.socket) -> None:
    """Answer each datagram."""
    while True:
        _, peer = datagrams.recvfrom(2048)
        datagrams.sendto(name.encode(), peer)


def main() -> None:
    """Serve until the end."""
    name, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    serving = []
    for kind, word, serve in ((socket.SOCK_STREAM, "tcp", serve_tcp), (socket.SOCK_DGRAM, "udp", serve_udp)):
        opened = socket.socket(socket.AF_INET, kind)
        try:
            if kind == socket.SOCK_STREAM:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, port))
            if kind == socket.SOCK_STREAM:
                opened.listen(1024)
        except OSError as error:
            print(f"{name} has no {word}: {error.strerror}", flush=True)
            continue
        serving.append(threading.Thread(target=serve, args=(name, opened)))
        serving[-1].start()
        print(f"{name} serves {word}", flush=True)
    print(f"{name} ready", flush=True)
    for thread in serving:
        thread.join()


if __name__ == "__main__":
    main()
