# SPDX-License-Identifier: MulanPSL-2.0
"""What `gazelled selftest` runs on the stack: echo.py ADDRESS. It says its port, and ends with its client."""

from __future__ import annotations

import socket
import sys


def main(address: str) -> None:
    """Serve one client until it closes."""
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := client.recv(1 << 20):
        client.sendall(data)


if __name__ == "__main__":
    main(sys.argv[1])
