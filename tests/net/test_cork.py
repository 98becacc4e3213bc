# SPDX-License-Identifier: MulanPSL-2.0
"""TCP_CORK: bytes wait for more, for 200 ms at most; acknowledgments do not wait.

invented neighbour, 10.91.0.77 -- tap gz-NAME -- stack 10.91.0.2
"""

from __future__ import annotations

import time

from kit.lab import Kit
from kit.packets import ACK, PSH, neighbour, served

SERVER = """
import socket, sys
listener = socket.create_server(("", 7410))
print("serving", flush=True)
connection = listener.accept()[0]
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
for word in (b"partial", b"more"):
    assert connection.recv(1) == b"?"
    connection.send(word)
assert connection.recv(100) == b"question"
print("asked", flush=True)
while connection.recv(1) == b"?":
    connection.send(b"again")
"""


def test_a_cork_holds_bytes_for_a_while_and_acknowledgments_not_at_all(kit: Kit) -> None:
    instance, server = served(kit, SERVER)
    peer = neighbour(instance, 7410)
    peer.open()

    peer.send(ACK | PSH, b"?")
    asked = time.monotonic()
    segment = peer.wait(lambda packet: packet.data == b"partial")
    assert segment is not None, "it never left"
    assert 0.15 < time.monotonic() - asked < 1.5
    peer.ack = segment.end
    peer.send(ACK)
    peer.wire.drain()

    # What the cork holds now must not hold an acknowledgment.
    peer.send(ACK | PSH, b"?")
    peer.send(ACK | PSH, b"question")
    answer = peer.wait(lambda packet: packet.ack == peer.seq & 0xFFFFFFFF)
    assert answer is not None
    assert not answer.data, "it went with the bytes the cork had held"
    server.said("asked")
    segment = peer.wait(lambda packet: packet.data == b"more")
    assert segment is not None

    # The cork is still there, and works once more.
    peer.ack = segment.end
    peer.send(ACK | PSH, b"?")
    asked = time.monotonic()
    assert peer.wait(lambda packet: packet.data == b"again") is not None
    assert 0.15 < time.monotonic() - asked < 1.5
    instance.stop()
