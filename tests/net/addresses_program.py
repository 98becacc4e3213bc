# SPDX-License-Identifier: MulanPSL-2.0
"""Says which addresses its sockets have: what a program sees of an interface with several.

addresses_program.py serve PORT ADDRESS          on PORT of every address, on PORT + 1 of ADDRESS alone
addresses_program.py connect PORT [FROM>]TO...   by TCP and UDP, one line each, client ports left out
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys

PKTINFO4, PKTINFO6 = 8, socket.IPV6_PKTINFO


def name(ends: tuple[object, ...]) -> str:
    """Return address and scope of an end."""
    return f"{ends[0]}%{ends[3]}" if len(ends) > 3 and ends[3] else str(ends[0])


def listener(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, dualstack_ipv6=address == "::")


def greet(server: socket.socket) -> None:
    with server.accept()[0] as connection:
        connection.sendall(f"{name(connection.getsockname())} < {name(connection.getpeername())}".encode())


def answer(server: socket.socket) -> None:
    """Answer from the address that the datagram was to, and say which that was, and by which interface."""
    _, control, _, peer = server.recvmsg(2048, 256)
    info = next(data for _, kind, data in control if kind == PKTINFO6)
    here, index = info[:16], struct.unpack("I", info[16:])[0]
    mapped = here[:12] == bytes(10) + b"\xff\xff"
    text = socket.inet_ntop(socket.AF_INET, here[12:]) if mapped else socket.inet_ntop(socket.AF_INET6, here)
    said = f"{text} by {socket.if_indextoname(index)} < {name(peer)}".encode()
    control = (
        [(socket.IPPROTO_IP, PKTINFO4, struct.pack("I4s4s", 0, here[12:], bytes(4)))]
        if mapped
        else [(socket.IPPROTO_IPV6, PKTINFO6, info)]
    )
    server.sendmsg([said], control, 0, peer)


def serve(port: int, address: str) -> None:
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    datagrams.bind(("::", port))
    selector = selectors.DefaultSelector()
    selector.register(listener("::", port), selectors.EVENT_READ, greet)
    selector.register(listener(address, port + 1), selectors.EVENT_READ, greet)
    selector.register(datagrams, selectors.EVENT_READ, answer)
    print("serving", flush=True)
    while True:
        for key, _ in selector.select():
            key.data(key.fileobj)


def connect(port: int, where: str) -> None:
    source, _, to = where.rpartition(">")
    target = socket.getaddrinfo(to, port)[0][4]
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, kind) as client:
                client.settimeout(3)
                if source:
                    client.bind(socket.getaddrinfo(source, 0)[0][4])
                client.connect(target)
                if kind == socket.SOCK_DGRAM:
                    client.send(b"who?")
                print(f"{where}: {name(client.getsockname())} > {name(client.getpeername())}: "
                      f"{client.recv(2048).decode()}", flush=True)  # fmt: skip
        except OSError as error:
            print(f"{where}: {error}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3])
    for each in sys.argv[3:]:
        connect(int(sys.argv[2]), each)
    print("done", flush=True)
