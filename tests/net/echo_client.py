# SPDX-License-Identifier: MulanPSL-2.0
"""Echoes a word on each of N connections that are open at once: echo_client.py ADDRESS PORT N. Fails after 5 s."""

from __future__ import annotations

import socket
import sys
import time


def main(address: str, port: int, count: int) -> None:
    deadline = time.monotonic() + 5.0

    def left() -> float:
        return max(0.01, deadline - time.monotonic())

    connections = []
    for number in range(count):
        connection = socket.create_connection((address, port), timeout=left())
        connection.sendall(b"%d." % number)
        connections.append(connection)
    for number, connection in enumerate(connections):
        connection.settimeout(left())
        got = b""
        while not got.endswith(b"."):
            data = connection.recv(64)
            assert data, "closed"
            got += data
        assert got == b"%d." % number


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
