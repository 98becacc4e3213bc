# SPDX-License-Identifier: MulanPSL-2.0
"""Datagrams in pieces, as no well-meaning kernel cuts them.

invented neighbours, 10.91.0.x and fd00:91::x -- tap gz-NAME -- stack 10.91.0.2, fd00:91::2
"""

from __future__ import annotations

import sys

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit
from kit.packets import UDP, Wire, fragment_of, ip, kit_wire, udp

PORT = 5300
ECHO = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.bind(("::", 5300))
print("serving", flush=True)
while True:
    data, peer = server.recvfrom(65536)
    server.sendto(f"{len(data)} {sum(data)}".encode(), peer)
"""
FAMILIES = pytest.mark.parametrize(("address", "source"), [("10.91.0.2", "10.91.0.77"), ("fd00:91::2", "fd00:91::77")])
Piece = tuple[int, int, bool]  # from, to, and whether more follows


class Sender:
    """A neighbour that sends datagrams in pieces and hears what the server says of them."""

    def __init__(self, wire: Wire, source: str, to: str) -> None:
        wire.own(source)
        self.wire, self.source, self.to = wire, source, to
        self.ident = 1

    def datagram(self, size: int) -> bytes:
        """Return a datagram of so many bytes with its header, other ones each time."""
        self.ident += 1
        data = bytes((at // 8 + self.ident) % 251 for at in range(size - 8))
        return udp(self.source, self.to, (1000 + self.ident, PORT), data)

    def send(self, datagram: bytes, pieces: list[Piece], source: str | None = None) -> None:
        """Send these pieces of a datagram."""
        for at, end, more in pieces:
            part = datagram[at:end]
            self.wire.send(fragment_of(source or self.source, self.to, UDP, self.ident, at, more, part))

    def arrived(self, datagram: bytes) -> None:
        """Wait for the server's answer to it."""
        answer = self.wire.wait(lambda packet: packet.to == self.source and packet.ports[1] == 1000 + self.ident)
        assert answer is not None, "it did not arrive"
        assert answer.data == f"{len(datagram) - 8} {sum(datagram[8:])}".encode()

    def lost(self) -> None:
        """Say that the last one must not have arrived: what is sent after it has, and was the first to."""
        wrong = 1000 + self.ident
        whole = self.datagram(64)
        self.wire.send(ip(self.source, self.to, UDP, whole))
        self.arrived(whole)
        assert not any(packet.ports[1] == wrong for packet in self.wire.drain())


def _started(kit: Kit) -> tuple[Instance, Wire]:
    instance = on_tap(kit, 1, ipv6=True)
    instance.start()
    instance.spawn(sys.executable, "-c", ECHO).said("serving")
    return instance, kit_wire(instance)


@FAMILIES
def test_pieces_join_in_any_order_but_never_over_a_hole_or_one_another(kit: Kit, address: str, source: str) -> None:
    instance, wire = _started(kit)
    sender = Sender(wire, source, address)
    good: list[list[Piece]] = [
        [(0, 32, True), (32, 64, False)],
        [(32, 64, False), (0, 32, True)],
        [(at, at + 8, at < 56) for at in range(56, -1, -8)],
        [(0, 32, True), (0, 32, True), (32, 64, False)],
        [(32, 64, False), (32, 64, False), (0, 32, True)],
    ]
    for pieces in good:
        datagram = sender.datagram(64)
        sender.send(datagram, pieces)
        sender.arrived(datagram)
    bad: list[list[Piece]] = [
        [(0, 8, True), (24, 64, False), (16, 24, True)],
        [(0, 8, True), (56, 64, False), (48, 56, True), (40, 48, True)],
        [(0, 32, True), (24, 40, True), (32, 64, False)],
        [(0, 32, True), (16, 24, True), (32, 64, False)],
        [(32, 64, False), (0, 40, True)],
        [(0, 32, True), (24, 64, False)],
        [(48, 56, True), (0, 32, True), (32, 40, False)],
        [(48, 56, False), (0, 32, True), (32, 64, False)],
        [(0, 12, True), (16, 64, False), (8, 16, True)],
    ]
    for pieces in bad:
        sender.send(sender.datagram(64), pieces)
        sender.lost()
    instance.stop()


@FAMILIES
def test_unfinished_datagrams_of_many_keep_nobody_from_being_heard(kit: Kit, address: str, source: str) -> None:
    instance, wire = _started(kit)
    sender = Sender(wire, source, address)
    page = instance.page(0)
    free = page.counters()["mbufs_free"]
    for number in range(8000):
        other = f"fd00:91::{number + 4096:x}" if ":" in source else f"10.91.0.{number % 100 + 100}"
        sender.send(sender.datagram(1000), [(8, 808, True)], other)
    for size in (64, 60_000):
        datagram = sender.datagram(size)
        step = 32 if size < 100 else 1440
        sender.send(datagram, [(at, min(at + step, size), at + step < size) for at in range(0, size, step)])
        sender.arrived(datagram)
    # The gauge is of the last second: mbufs are lent to nobody who has not sent the rest.
    assert page.counters()["mbufs_free"] > free * 3 // 4
    assert page.counters()["alloc_failed"] == 0
    assert instance.worker(0)["restarts"] == 0
    instance.stop()
