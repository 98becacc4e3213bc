# SPDX-License-Identifier: MulanPSL-2.0
"""TCP segments that no well-meaning kernel sends.

invented neighbours, 10.91.0.x -- tap gz-NAME -- stack 10.91.0.2
"""

from __future__ import annotations

import sys

from net.instance import on_tap
from net.kit import Kit
from net.packets import ACK, FIN, MSS_OPTION, PSH, RST, SYN, Connection, kit_wire

CLOSES_FIRST = """
import socket, sys
listener = socket.create_server(("", 7100))
print("listening", flush=True)
connection = listener.accept()[0]
listener.close()
connection.recv(1)
connection.close()
print("closed", flush=True)
sys.stdin.read()
"""


def test_a_syn_that_ends_a_time_wait_without_a_listener_is_refused_by_us(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    server = instance.spawn(sys.executable, "-c", CLOSES_FIRST)
    server.said("listening")
    peer = Connection(kit_wire(instance), "10.91.0.77", instance.address, 7100)
    peer.open()
    peer.send(ACK | PSH, b"x")
    end = peer.wait(lambda packet: bool(packet.flags & FIN))
    assert end is not None
    peer.ack = end.end
    peer.send(ACK | FIN)
    server.said("closed")
    assert peer.wait(lambda packet: packet.ack == peer.seq) is not None
    peer.seq += 100_000
    peer.send(SYN, options=MSS_OPTION)
    # The answer is of ours and to this SYN: what the connection was is forgotten with it.
    answer = peer.wait(lambda packet: bool(packet.flags & RST))
    assert answer is not None
    assert (answer.source, answer.flags, answer.ack) == (instance.address, RST | ACK, peer.seq)
    assert instance.worker(0)["restarts"] == 0
    instance.stop()
