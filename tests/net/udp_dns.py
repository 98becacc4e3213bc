# SPDX-License-Identifier: MulanPSL-2.0
"""A name server that knows one name, and a client: udp_dns.py serve ADDRESS | ask ADDRESS | ask-through-libc NAME."""

from __future__ import annotations

import socket
import struct
import sys

NAME, ADDRESS = "stack.test", "10.9.8.7"


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def serve(address: str) -> None:
    """Answer for ever: A of the name, nothing else."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    print("serving", flush=True)
    while True:
        question, peer = server.recvfrom(512)
        asked = _encoded(NAME)
        known = question[12 : 12 + len(asked)] == asked and question[12 + len(asked) : 14 + len(asked)] == b"\0\1"
        head = struct.pack(">HHHHHH", struct.unpack(">H", question[:2])[0], 0x8580, 1, known, 0, 0)
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(ADDRESS) if known else b""
        server.sendto(head + question[12 : 16 + len(asked)] + answer, peer)


def ask(address: str) -> str:
    """Ask as a resolver does: connected, with a deadline by poll."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((address, 53))
        client.send(struct.pack(">HHHHHH", 77, 0x0100, 1, 0, 0, 0) + _encoded(NAME) + b"\0\1\0\1")
        answer = client.recv(512)
    assert answer[:2] == b"\0\x4d", answer
    return socket.inet_ntoa(answer[-4:])


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    found = ask(sys.argv[2]) if sys.argv[1] == "ask" else socket.getaddrinfo(sys.argv[2], 80, socket.AF_INET)[0][4][0]
    assert found == ADDRESS, found
