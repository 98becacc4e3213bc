# SPDX-License-Identifier: MulanPSL-2.0
"""Children that wait for the same listener, each in an epoll set: ADDRESS PORT CHILDREN shared|exclusive."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1


def serve(listener: socket.socket, events: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    epoll = select.epoll()
    epoll.register(listener, events)
    print(f"waits {os.getpid()}", flush=True)
    while True:
        epoll.poll()
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        connection.sendall(str(os.getpid()).encode())
        connection.close()


def main(address: str, port: int, children: int, how: str) -> None:
    listener = socket.create_server((address, port), backlog=64)
    listener.setblocking(False)
    events = select.EPOLLIN | (select.EPOLLEXCLUSIVE if how == "exclusive" else 0)
    for _ in range(children):
        if not os.fork():
            serve(listener, events)
    os.wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
