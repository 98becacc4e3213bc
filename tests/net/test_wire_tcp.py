# SPDX-License-Identifier: MulanPSL-2.0
"""TCP segments that no well-meaning kernel sends.

invented neighbours, 10.91.0.x -- tap gz-NAME -- stack 10.91.0.2
"""

from __future__ import annotations

from kit.instance import Instance, on_tap
from kit.lab import Kit
from kit.packets import ACK, FIN, MAC, MSS_OPTION, PSH, RST, SYN, Connection, grown, kit_wire, neighbour, served, tcp
from kit.waiting import until

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

STAYS = CLOSES_FIRST.replace("listener.close()", "pass").replace("sys.stdin.read()", "listener.accept()")


def in_time_wait(kit: Kit, program: str) -> tuple[Instance, Connection]:
    """Return a connection that the stack has closed first, and its peer after it."""
    instance, server = served(kit, program, "listening")
    peer = neighbour(instance, 7100)
    peer.open()
    peer.send(ACK | PSH, b"x")
    end = peer.wait(lambda packet: bool(packet.flags & FIN))
    assert end is not None
    peer.ack = end.end
    peer.send(ACK | FIN)
    server.said("closed")
    assert peer.wait(lambda packet: packet.ack == peer.seq) is not None
    return instance, peer


def test_a_syn_that_ends_a_time_wait_without_a_listener_is_refused_by_us(kit: Kit) -> None:
    instance, peer = in_time_wait(kit, CLOSES_FIRST)
    peer.seq += 100_000
    peer.send(SYN, options=MSS_OPTION)
    # The answer is of ours and to this SYN: what the connection was is forgotten with it.
    answer = peer.wait(lambda packet: bool(packet.flags & RST))
    assert answer is not None
    assert (answer.source, answer.flags, answer.ack) == (instance.address, RST | ACK, peer.seq)
    assert instance.worker(0)["restarts"] == 0
    instance.stop()


def test_an_older_syn_ends_a_time_wait_by_its_reset(kit: Kit) -> None:
    instance, peer = in_time_wait(kit, STAYS)
    peer.wire.drain()
    older = (peer.isn - 100_000) & 0xFFFFFFFF
    peer.send(SYN, seq=older, options=MSS_OPTION)
    answer = peer.wait(lambda packet: not packet.flags & FIN)
    assert answer is not None
    assert (answer.flags, answer.ack) == (ACK, peer.seq)
    # What a Linux client answers an ACK with that acknowledges nothing of its SYN; then it tries again.
    peer.send(RST, seq=(answer.ack + 1) & 0xFFFFFFFF)
    peer.send(SYN, seq=older, options=MSS_OPTION)
    answer = peer.wait(lambda packet: not packet.flags & FIN)
    assert answer is not None
    assert answer.flags == ACK, "a RST of another number ends nothing"
    peer.send(RST, seq=answer.ack)
    peer.send(SYN, seq=older, options=MSS_OPTION)
    answer = peer.wait(lambda packet: not packet.flags & FIN)
    assert answer is not None
    assert answer.flags == SYN | ACK
    instance.stop()


def test_a_segment_of_no_connection_is_refused_as_it_asks_for(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    wire = kit_wire(instance)
    grown(wire, instance)
    for flags, expected, seq, ack in ((ACK, RST, 5000, 0), (SYN, RST | ACK, 0, 1001), (FIN, RST | ACK, 0, 1001)):
        peer = Connection(wire, "10.91.0.77", instance.address, 7100)
        peer.seq, peer.ack = 1000, 5000
        peer.send(flags)
        answer = peer.wait()
        assert answer is not None
        assert (answer.flags, answer.seq, answer.ack, answer.dont_fragment) == (expected, seq, ack, True)
    instance.stop()


def test_a_frame_with_a_priority_and_no_vlan_is_heard(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    wire = kit_wire(instance)
    grown(wire, instance)
    for vlan, heard in ((0x0001, False), (0xE000, True)):
        peer = Connection(wire, "10.91.0.77", instance.address, 7100)
        packet = tcp(peer.source, peer.to, peer.ports, SYN, seq=peer.seq)
        wire.send_frame(wire.stack_mac + MAC + b"\x81\x00" + vlan.to_bytes(2, "big") + b"\x08\x00" + packet)
        assert (peer.wait(seconds=5.0 if heard else 0.3) is not None) == heard
    instance.stop()


def test_a_retransmission_after_a_timeout_counts(kit: Kit) -> None:
    instance, server = served(kit, CLOSES_FIRST, "listening")
    peer = neighbour(instance, 7100)
    peer.open()
    peer.send(ACK | PSH, b"x")
    server.said("closed")  # its FIN is never acknowledged
    until(lambda: instance.page(0).counters()["retransmits"] >= 2, "timeouts to be counted")
    peer.send(RST)
    instance.stop()
