# SPDX-License-Identifier: MulanPSL-2.0
"""Two process groups on one tap: datagrams reach the group whose program has the socket, whatever queue they arrive at.

One worker per group. The kernel side's 64 sockets spread over both queues, so about half of the datagrams arrive at a
worker that knows nothing of their socket.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit

SERVER = str(Path(__file__).with_name("udp_echo.py"))
PEERS = 64
CLIENT = """
import socket, sys
address, ports, peers = sys.argv[1], [int(port) for port in sys.argv[2].split(",")], int(sys.argv[3])
for number in range(peers):
    client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect((address, ports[number % len(ports)]))
    for size in (10, 1400, 5000):
        client.send(bytes([number]) * size)
        assert client.recv(65536) == bytes([number]) * size, (number, size)
"""
NOBODY = """
import socket, sys
refused = 0
for number in range(int(sys.argv[3])):
    client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect((sys.argv[1], int(sys.argv[2])))
    client.send(b"anybody?")
    try:
        client.recv(100)
    except ConnectionRefusedError:
        refused += 1
print(refused)
"""


@pytest.fixture
def instance(kit: Kit) -> Iterator[Instance]:
    """Start two groups of one worker each, both families."""
    made = on_tap(kit, 2, ipv6=True, groups=2)
    made.start()
    yield made
    made.stop()


def _stray(instance: Instance) -> list[int]:
    """Return how many packets each worker has handed to the other."""
    return [instance.page(queue_id).counters()["steered_out"] for queue_id in range(2)]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_server_of_either_group_hears_every_peer(instance: Instance, family: str) -> None:
    address = instance.address if family == "ipv4" else "fd00:91::2"
    for group in range(2):
        instance.spawn(sys.executable, SERVER, address, str(5300 + group), "epoll", group=group).said("serving")
    instance.client.run(sys.executable, "-c", CLIENT, address, "5300,5301", str(PEERS))
    assert all(_stray(instance)), "no datagram arrived at the queue of the other group"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_client_of_either_group_gets_its_answers(instance: Instance, family: str) -> None:
    peer = instance.peer if family == "ipv4" else "fd00:91::1"
    instance.kit.spawn(instance.client, sys.executable, SERVER, peer, "5300", "recv").said("serving")
    for group in range(2):
        program = instance.attached(sys.executable, "-c", CLIENT, peer, "5300", str(PEERS // 2), group=group)
        instance.home.run(*program)


def test_a_program_of_one_group_reaches_one_of_the_other(instance: Instance) -> None:
    for group in range(2):
        instance.spawn(sys.executable, SERVER, "0.0.0.0", str(5300 + group), "poll", group=group).said("serving")
    for group in range(2):
        other = str(5300 + 1 - group)
        program = instance.attached(sys.executable, "-c", CLIENT, instance.address, other, "8", group=group)
        instance.home.run(*program)


def test_a_port_that_no_group_has_is_refused_to_every_peer(instance: Instance) -> None:
    instance.spawn(sys.executable, SERVER, "0.0.0.0", "5300", "recv", group=1).said("serving")
    said = instance.client.run(sys.executable, "-c", NOBODY, instance.address, "5399", str(PEERS))
    assert int(said) == PEERS
