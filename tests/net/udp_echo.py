# SPDX-License-Identifier: MulanPSL-2.0
"""Sends every datagram back to its sender: udp_echo.py ADDRESS PORT recv|poll|epoll."""

from __future__ import annotations

import select
import socket
import sys


def main(address: str, port: int, how: str) -> None:
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, port))
    print("serving", flush=True)
    poll = select.poll()
    poll.register(server, select.POLLIN)
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLET)
    while True:
        if how == "recv":
            data, peer = server.recvfrom(65536)
            server.sendto(data, peer)
            continue
        server.setblocking(False)
        (poll if how == "poll" else epoll).poll()
        while True:
            try:
                data, peer = server.recvfrom(65536)
            except BlockingIOError:
                break
            server.sendto(data, peer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
