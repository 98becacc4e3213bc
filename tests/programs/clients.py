# SPDX-License-Identifier: MulanPSL-2.0
"""Clients that know what must come back: clients.py KIND ADDRESS PORT; prints "all N ..." when it did.

echo       many connections at once in one event loop, each sends random pieces and compares what returns
memcached  threads that set, get, append and delete, and compare every answer
memcached-udp  sets and gets over UDP, answers of several datagrams among them
closing    one HTTP request for each connection until SIGTERM, prints how many failed
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import struct
import sys
import threading
from contextlib import closing

CONNECTIONS, PIECES = 20, 12
THREADS, KEYS = 8, 60
DATAGRAM_KEYS = 200


async def echo_once(address: str, port: int, seed: int) -> None:
    source = random.Random(seed)
    reader, writer = await asyncio.open_connection(address, port, family=socket.AF_INET)
    for _ in range(PIECES):
        piece = source.randbytes(source.choice((1, 100, 4096, 60000)))
        writer.write(piece)
        assert await asyncio.wait_for(reader.readexactly(len(piece)), 20) == piece
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 20) == b"", "more came back than was sent"
    writer.close()
    await writer.wait_closed()


def echo(address: str, port: int) -> None:
    async def all_at_once() -> None:
        await asyncio.gather(*(echo_once(address, port, seed) for seed in range(CONNECTIONS)))

    asyncio.run(all_at_once())
    print(f"all {CONNECTIONS} connections")


def memcached_once(address: str, port: int, name: int) -> None:
    source = random.Random(name)
    with closing(socket.create_connection((address, port), timeout=20)) as sock, sock.makefile("rwb") as file:

        def ask(words: bytes, expected: bytes) -> None:
            file.write(words)
            file.flush()
            assert (got := file.read(len(expected))) == expected, (words[:60], got[:60], expected[:60])

        for number in range(KEYS):
            key, value = b"%d-%d" % (name, number), source.randbytes(source.choice((3, 1000, 100000))).hex().encode()
            ask(b"set %s 5 0 %d\r\n%s\r\n" % (key, len(value), value), b"STORED\r\n")
            ask(b"append %s 0 0 3\r\nend\r\n" % key, b"STORED\r\n")
            ask(b"get %s\r\n" % key, b"VALUE %s 5 %d\r\n%send\r\nEND\r\n" % (key, len(value) + 3, value))
            ask(b"delete %s\r\n" % key, b"DELETED\r\n")
            ask(b"get %s\r\n" % key, b"END\r\n")


def memcached(address: str, port: int) -> None:
    right = []

    def thread(name: int) -> None:
        memcached_once(address, port, name)
        right.append(name)

    threads = [threading.Thread(target=thread, args=(name,)) for name in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(right) == THREADS
    print(f"all {THREADS} threads")


def memcached_udp(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)

        def ask(number: int, text: bytes) -> bytes:
            sock.sendto(struct.pack(">HHHH", number, 0, 1, 0) + text, (address, port))
            parts: dict[int, bytes] = {}
            while True:
                answer = sock.recv(65536)
                request, sequence, total, _ = struct.unpack(">HHHH", answer[:8])
                assert request == number, (request, number)
                parts[sequence] = answer[8:]
                if len(parts) == total:
                    return b"".join(parts[part] for part in range(total))

        for number in range(DATAGRAM_KEYS):
            value = bytes([97 + number % 26]) * (number * 5)
            stored = ask(2 * number, b"set key%d 0 0 %d\r\n%s\r\n" % (number, len(value), value))
            assert stored == b"STORED\r\n", stored
            got = ask(2 * number + 1, b"get key%d\r\n" % number)
            assert got == b"VALUE key%d 0 %d\r\n%s\r\nEND\r\n" % (number, len(value), value), got
    print(f"all {DATAGRAM_KEYS} keys")


def closing_requests(address: str, port: int) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    done, failures = 0, []
    while not ended.is_set():
        try:
            with closing(socket.create_connection((address, port), timeout=10)) as sock:
                sock.sendall(b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                said = b""
                while piece := sock.recv(4096):
                    said += piece
            assert said.startswith(b"HTTP/1.1 200 "), said
            assert said.endswith(b"\r\n\r\nsmall\n"), said
            done += 1
        except (OSError, AssertionError) as error:
            failures.append(repr(error))
    print(f"{done} done, {len(failures)} failed: {failures[:5]}")


if __name__ == "__main__":
    kind, host, number = sys.argv[1:]
    {"echo": echo, "memcached": memcached, "memcached-udp": memcached_udp, "closing": closing_requests}[kind](
        host, int(number)
    )
