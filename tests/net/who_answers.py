# SPDX-License-Identifier: MulanPSL-2.0
"""Asks a named_server many times and counts who answered: who_answers.py tcp|udp ADDR PORT TIMES [SOURCE_PORT]."""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter


def ask(kind: str, server: tuple[str, int], source: int) -> str:
    """Return the name of who answers, or what went wrong."""
    try:
        if kind == "tcp":
            with socket.create_connection(server, 5) as connection:
                return connection.recv(100).decode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            if source:
                datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                datagrams.bind(("0.0.0.0", source))
            datagrams.settimeout(5)
            datagrams.connect(server)
            datagrams.send(b"who?")
            return datagrams.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def main() -> None:
    """Print the counts as JSON."""
    kind, address, port, times, *rest = sys.argv[1:]
    source = int(rest[0]) if rest else 0
    print(json.dumps(Counter(ask(kind, (address, int(port)), source) for _ in range(int(times)))))


if __name__ == "__main__":
    main()
