# SPDX-License-Identifier: MulanPSL-2.0
"""Neighbours, many and forged: ARP and neighbour discovery of a worker.

invented neighbours, 10.91.0.x and fd00:91::x -- tap gz-NAME -- stack 10.91.0.2, fd00:91::2
"""

from __future__ import annotations

import sys

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit
from kit.packets import ACK, PSH, SYN, Connection, Wire, advertisement, arp, icmp, kit_wire, packed, tcp
from kit.waiting import until

ECHO = """
import selectors, socket
listener = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4000)
ready = selectors.DefaultSelector()
ready.register(listener, selectors.EVENT_READ)
print("serving", flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj is listener:
            ready.register(listener.accept()[0], selectors.EVENT_READ)
        elif data := key.fileobj.recv(1000):
            key.fileobj.sendall(data)
        else:
            ready.unregister(key.fileobj)
            key.fileobj.close()
"""
FAMILIES = pytest.mark.parametrize(("address", "subnet"), [("10.91.0.2", "10.91."), ("fd00:91::2", "fd00:91::")])


def _wide(kit: Kit) -> tuple[Instance, Wire]:
    """Start an instance whose IPv4 subnet holds thousands, and a server on it."""
    instance = on_tap(kit, 1, ipv6=True)
    text = instance.config.read_text().replace("10.91.0.2/24", "10.91.0.2/16")
    instance.config.write_text(text)
    instance.start()
    wire = kit_wire(instance)
    instance.spawn(sys.executable, "-c", ECHO).said("serving")
    return instance, wire


def _address(subnet: str, number: int) -> str:
    return f"{subnet}{number:x}" if ":" in subnet else f"{subnet}{number // 250}.{number % 250 + 1}"


def _echoes(peer: Connection) -> None:
    peer.send(ACK | PSH, b"hello")
    assert peer.receive(5) == b"hello"


@FAMILIES
def test_hundreds_of_neighbours_talk(kit: Kit, address: str, subnet: str) -> None:
    instance, wire = _wide(kit)
    peers = [Connection(wire, _address(subnet, 1000 + number), address, 7000) for number in range(400)]
    for peer in peers:
        peer.open()
    asked = len(wire.asked)
    for peer in peers:
        _echoes(peer)
    assert len(wire.asked) - asked < 400, "who has talked is known"
    instance.stop()


@FAMILIES
def test_forged_neighbours_do_not_push_out_who_talks(kit: Kit, address: str, subnet: str) -> None:
    instance, wire = _wide(kit)
    peer = Connection(wire, _address(subnet, 200), address, 7000)
    peer.open()
    _echoes(peer)
    asked = wire.asked.count(peer.source)
    for number in range(10_000):
        source = _address(subnet, 1000 + number)
        # Half of them never answer our question, half make themselves known and are never talked to.
        if number % 2:
            wire.send(tcp(source, address, (1234, 7000), SYN))
        elif ":" in source:
            wire.send(icmp(source, address, 135, 0, bytes(4) + packed(address) + b"\1\1" + bytes([2, 9, *[0] * 4])))
        else:
            wire.send_frame(arp(1, source, bytes([2, 9, 0, 0, 0, 0]), packed(address), bytes(6), wire.stack_mac))
        if not number % 500:
            _echoes(peer)
    _echoes(peer)
    assert wire.asked.count(peer.source) <= asked + 1
    later = Connection(wire, _address(subnet, 201), address, 7000)
    later.open()
    _echoes(later)
    assert instance.worker(0)["restarts"] == 0
    instance.stop()


def test_redirects_and_router_advertisements_are_nobodys_business(kit: Kit) -> None:
    instance, wire = _wide(kit)
    silent = [f"fd00:91::a:{number:x}" for number in range(70)]
    for source in silent:
        wire.send(tcp(source, "fd00:91::2", (1234, 7000), SYN))  # each answer waits for an answer
    for number, source in enumerate(silent):
        target = packed(f"fd00:91::b:{number:x}")
        wire.send(icmp("fe80::1", "fd00:91::2", 137, 0, bytes(4) + target + packed(source)))
    router = bytes.fromhex("40000708") + bytes(8) + bytes.fromhex("0501000000000500")
    wire.send(icmp("fe80::1", "fd00:91::2", 134, 0, router))
    for source in reversed(silent):
        wire.send(advertisement(source, "fd00:91::2", bytes([2, 0, 0, 0, 0, 9])))
    peer = Connection(wire, "fd00:91::77", "fd00:91::2", 7000)
    peer.open()
    _echoes(peer)
    assert instance.worker(0)["restarts"] == 0
    assert not any(target.startswith("fd00:91::b:") for target in wire.asked)
    instance.stop()


@FAMILIES
def test_a_neighbour_with_another_hardware_address_is_found_again(kit: Kit, address: str, subnet: str) -> None:
    instance, wire = _wide(kit)
    peer = Connection(wire, _address(subnet, 200), address, 7000)
    peer.open()
    _echoes(peer)
    wire.macs[peer.source] = bytes.fromhex("02aa00000099")
    asked = wire.asked.count(peer.source)

    def asked_again() -> bool:
        _echoes(peer)
        return wire.asked.count(peer.source) > asked

    # Half a minute after its last answer, and a few seconds more, it is asked again while it is talked to.
    until(asked_again, "the neighbour to be asked", 45)
    instance.stop()
