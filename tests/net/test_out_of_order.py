# SPDX-License-Identifier: MulanPSL-2.0
"""Segments out of order: each byte lands where it belongs, and however many pieces come they hold nobody up.

invented neighbours, 10.91.0.x --+
                                 +-- tap gz-NAME -- stack 10.91.0.2, fd00:91::2
kernel client, 10.91.0.1 --------+
"""

from __future__ import annotations

import hashlib
import random
import struct
import sys
import time

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit
from kit.packets import ACK, FIN, MSS_OPTION, PSH, SYN, Connection, kit_wire
from kit.waiting import until

SACK_PERMITTED = b"\x04\x02"
SOURCES = {"ipv4": "10.91.0.77", "ipv6": "fd00:91::77"}
CONNECTIONS, PIECES = 8, 2048

# Says the digest of all that one connection brings, then serves the next; echoes on the next port.
SERVER = """
import hashlib, socket, sys, threading
def digest(listener):
    while True:
        with listener.accept()[0] as connection:
            whole = b"".join(iter(lambda: connection.recv(65536), b""))
            print(len(whole), hashlib.sha256(whole).hexdigest(), flush=True)
def echo(listener):
    while True:
        with listener.accept()[0] as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while piece := connection.recv(65536):
                connection.sendall(piece)
def idle(listener):
    kept = []
    while True:
        kept.append(listener.accept()[0])
parts = [(digest, 7400), (echo, 7401), (idle, 7402)]
listeners = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for _, port in parts]
for (serve, _), listener in zip(parts, listeners):
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
print("serving", flush=True)
threading.Event().wait()
"""

# Round trips until it is told to end: says the longest.
TALKER = """
import select, socket, sys, time
with socket.create_connection((sys.argv[1], 7401), 10) as s:
    s.settimeout(60)
    longest = 0
    print("talking", file=sys.stderr, flush=True)
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        started = time.monotonic()
        s.send(b"x")
        s.recv(1)
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.005)
print(longest)
"""


def _started(kit: Kit) -> Instance:
    instance = on_tap(kit, 1, ipv6=True)
    instance.start()
    return instance


def _sacks(options: bytes) -> list[tuple[int, int]]:
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        if options[at] == 5:
            edges = struct.unpack(f"!{(options[at + 1] - 2) // 4}I", options[at + 2 : at + options[at + 1]])
            return list(zip(edges[::2], edges[1::2], strict=True))
        at += options[at + 1]
    return []


def _acknowledged(peer: Connection) -> bool:
    return peer.wait(lambda packet: packet.ack == peer.seq & 0xFFFFFFFF, 20) is not None


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("seed", range(3))
def test_what_comes_in_any_order_is_read_in_order(kit: Kit, family: str, seed: int) -> None:
    instance = _started(kit)
    server = instance.spawn(sys.executable, "-c", SERVER)
    server.said("serving")
    address = instance.address if family == "ipv4" else "fd00:91::2"
    order = random.Random(seed)
    peer = Connection(kit_wire(instance), SOURCES[family], address, 7400, options=MSS_OPTION + SACK_PERMITTED)
    peer.open()
    whole = order.randbytes(50_000)
    cuts = sorted(order.sample(range(1, len(whole)), 60))
    # Each piece overlaps its neighbours; the last one carries the FIN.
    pieces = [(max(0, a - order.randrange(50)), b) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    order.shuffle(pieces)
    first = peer.seq
    for start, end in pieces:
        last = FIN if end == len(whole) else 0
        for at in range(start, end, 1400):
            stop = min(at + 1400, end)
            peer.send(ACK | (last if stop == end else 0), whole[at:stop], seq=first + at)
    server.said(f"{len(whole)} {hashlib.sha256(whole).hexdigest()}")
    acknowledged = peer.wait(lambda packet: packet.ack == (first + len(whole) + 1) & 0xFFFFFFFF)
    assert acknowledged is not None
    instance.stop()


def test_a_gap_is_told_by_sack_and_filled_by_one_segment(kit: Kit) -> None:
    instance = _started(kit)
    server = instance.spawn(sys.executable, "-c", SERVER)
    server.said("serving")
    peer = Connection(kit_wire(instance), "10.91.0.77", instance.address, 7400, options=MSS_OPTION + SACK_PERMITTED)
    peer.open()
    first = peer.seq
    for at, blocks in ((1000, [(1000, 2000)]), (3000, [(3000, 4000), (1000, 2000)]), (2000, [(1000, 4000)])):
        peer.send(ACK, bytes(1000), seq=first + at)
        answer = peer.wait(lambda packet: bool(packet.flags & ACK))
        assert answer is not None
        assert answer.ack == first & 0xFFFFFFFF
        told = [((left - first) & 0xFFFFFFFF, (right - first) & 0xFFFFFFFF) for left, right in _sacks(answer.options)]
        assert told == blocks
    peer.send(ACK | PSH, bytes(1000), seq=first)
    answer = peer.wait(lambda packet: packet.ack == (first + 4000) & 0xFFFFFFFF, 1)
    assert answer is not None, "what was kept follows at once"
    assert _sacks(answer.options) == []
    instance.stop()


def test_thousands_of_pieces_hold_nobody_up(kit: Kit) -> None:
    instance = _started(kit)
    server = instance.spawn(sys.executable, "-c", SERVER)
    server.said("serving")
    wire = kit_wire(instance)
    peers = [Connection(wire, f"10.91.0.{100 + n}", instance.address, 7402) for n in range(CONNECTIONS)]
    for peer in peers:
        peer.open()
    page = instance.page(0)
    free = page.counters()["mbufs_free"]
    talker = kit.spawn(instance.client, sys.executable, "-c", TALKER, instance.address, "6")
    talker.said("talking")
    started, lowest = time.monotonic(), free
    while time.monotonic() - started < 5:
        for piece in range(PIECES):
            for peer in peers:
                peer.send(ACK, b"z", seq=peer.seq + 10 + 2 * piece)
            if piece % 256 == 0:
                wire.drain()  # each piece is answered
        lowest = min(lowest, page.counters()["mbufs_free"])
    talker.wait(60)
    longest = float(talker.output().split()[-1])
    assert longest < 1.0, f"a round trip took {longest:.1f} s"
    assert free - lowest < 1000, f"{free - lowest} packet buffers were held"
    # A connection that was full of pieces goes on when its gap closes.
    for peer in peers:
        for _ in range(4):
            peer.send(ACK, bytes(3 + PIECES // 2))
        assert _acknowledged(peer)
    until(lambda: page.counters()["mbufs_free"] > free - 200, "the packet buffers to come back")
    instance.stop()


def test_a_fin_ahead_of_its_data_waits_for_it(kit: Kit) -> None:
    instance = _started(kit)
    server = instance.spawn(sys.executable, "-c", SERVER)
    server.said("serving")
    peer = Connection(kit_wire(instance), "10.91.0.77", instance.address, 7400)
    answer = peer.open()
    assert answer.flags & SYN
    peer.send(ACK | FIN, seq=peer.seq + 5)
    peer.send(ACK, b"hello")
    server.said("5 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    instance.stop()
