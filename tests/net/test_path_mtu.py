# SPDX-License-Identifier: MulanPSL-2.0
"""Connections over a path that takes less than the device.

client 10.99.0.2, fd00:99::2 -- narrow veth -- the host's kernel, a router -- tap gz-NAME -- stack 10.91.0.2, fd00:91::2
"""

from __future__ import annotations

import sys
import time

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit
from kit.namespaces import Namespace
from kit.packets import ACK, UDP, Connection, icmp, ip, kit_wire, tcp, too_big, udp

SIZE = 4_000_000
SERVER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.create_server((sys.argv[1], 7000), family=family)
print("serving", flush=True)
while True:
    connection = listener.accept()[0]
    wanted = int(connection.makefile().readline())
    connection.sendall((bytes(range(251)) * (wanted // 251 + 1))[:wanted])
    connection.close()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=20) as connection:
    connection.sendall(sys.argv[2].encode() + b"\\n")
    got = b"".join(iter(lambda: connection.recv(65536), b""))
size = int(sys.argv[2])
assert got == (bytes(range(251)) * (size // 251 + 1))[:size], len(got)
"""
NARROW = {"10.91.0.2": 900, "fd00:91::2": 1280}


def _behind(kit: Kit, instance: Instance, mtu: int) -> Namespace:
    """Make a namespace behind a link of so much; the host's kernel is the router before it."""
    beyond = kit.namespace("b")
    instance.home.connect("near", beyond, "far")
    instance.home.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for place, device, own in ((instance.home, "near", "1"), (beyond, "far", "2")):
        place.run("ip", "link", "set", device, "mtu", str(mtu), "up")
        place.run("ip", "addr", "add", f"10.99.0.{own}/24", "dev", device)
        if mtu >= 1280:
            place.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=0", "net.ipv6.conf.all.forwarding=1")
            place.run("ip", "addr", "add", f"fd00:99::{own}/64", "dev", device, "nodad")
    beyond.run("ip", "route", "add", "10.91.0.0/24", "via", "10.99.0.1")
    if mtu >= 1280:
        beyond.run("ip", "route", "add", "fd00:91::/64", "via", "fd00:99::1")
    # A client's own MSS would tell the stack how narrow its link is: another link, further away, would not.
    beyond.run("ip", "link", "set", "far", "mtu", "1500")
    return beyond


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("address", sorted(NARROW))
def test_a_transfer_over_a_narrow_path_ends(kit: Kit, workers: int, address: str) -> None:
    instance = on_tap(kit, workers, ipv6=True, routed=True)
    instance.start()
    beyond = _behind(kit, instance, NARROW[address])
    instance.spawn(sys.executable, "-c", SERVER, address).said("serving")
    instance.home.run(sys.executable, "-c", CLIENT, address, "1")  # the host learns its neighbour
    started = time.monotonic()
    for _ in range(4):  # connections that have to learn and such that know already
        beyond.run(sys.executable, "-c", CLIENT, address, str(SIZE), timeout=30)
    # Each took one round trip more than over a wide path, and no timeout.
    assert time.monotonic() - started < 8
    assert sum(instance.page(number).counters()["retransmits"] for number in range(workers)) < 4 * 100
    assert all(row["restarts"] == 0 for row in instance.status()["workers"])
    instance.stop()


def _longest(peer: Connection, size: int) -> int:
    """Take so many bytes; return the length of the longest packet they came in."""
    longest, got = 0, 0
    while got < size:
        segment = peer.wait(lambda packet: bool(packet.data))
        assert segment is not None, f"nothing more came, {size - got} bytes are missing"
        assert segment.checksum_ok
        assert not segment.is_fragment
        known = (peer.ack - segment.seq) & 0xFFFFFFFF
        if known < len(segment.data):
            longest = max(longest, segment.longest)
            peer.ack = segment.end
            got += len(segment.data) - known
        peer.send(ACK)
    return longest


@pytest.mark.parametrize(("address", "peer_address"), [("10.91.0.2", "10.91.0.77"), ("fd00:91::2", "fd00:91::77")])
def test_only_who_quotes_what_is_under_way_narrows_a_path(kit: Kit, address: str, peer_address: str) -> None:
    instance = on_tap(kit, 1, "", ipv6=True)
    instance.start()
    wire = kit_wire(instance)
    instance.spawn(sys.executable, "-c", SERVER, address).said("serving")
    router = "10.91.0.1" if "." in address else "fd00:91::1"
    for quotes in (False, True):
        peer = Connection(wire, peer_address, address, 7000)
        peer.open()
        peer.window = 3000
        peer.send(ACK, b"20000\n")
        segment = peer.wait(lambda packet: bool(packet.data))
        assert segment is not None
        assert segment.dont_fragment
        forged = [
            tcp(address, peer_address, segment.ports, ACK, seq=peer.ack - 1, ack=peer.seq, data=bytes(1200)),
            tcp(address, peer_address, segment.ports, ACK, seq=peer.ack + 1_000_000, ack=peer.seq, data=bytes(1200)),
            tcp(address, peer_address, (7000, segment.ports[1] + 1), ACK, seq=segment.seq, data=bytes(1200)),
            ip(address, peer_address, UDP, udp(address, peer_address, (1, 2), bytes(1200))),
        ]
        for about in [segment.raw, *forged] if quotes else forged:
            wire.send(too_big(router, about, 1280))
        if not quotes:
            wire.send(icmp(router, address, 2 if ":" in address else 3, 0 if ":" in address else 4, bytes(60)))
        peer.ack = segment.end if not quotes else segment.seq
        peer.send(ACK)
        longest = _longest(peer, 20000 - (peer.ack - segment.seq))
        assert longest == 1280 if quotes else longest > 1280
    # A new connection to the same neighbour knows; a connection to another one does not care.
    for source, least, most in ((peer_address, 1000, 1280), (peer_address[:-2] + "78", 1281, 1500)):
        peer = Connection(wire, source, address, 7000)
        peer.open()
        peer.send(ACK, b"20000\n")
        assert least <= _longest(peer, 20000) <= most
    assert instance.worker(0)["restarts"] == 0
    instance.stop()
