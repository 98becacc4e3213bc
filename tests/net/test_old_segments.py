# SPDX-License-Identifier: MulanPSL-2.0
"""Old duplicates, told by their timestamps (PAWS, RFC 7323, section 5).

invented neighbour, 10.91.0.77 -- tap gz-NAME -- stack 10.91.0.2
"""

from __future__ import annotations

import struct

from kit.instance import Instance
from kit.lab import Kit, Process
from kit.packets import ACK, FIN, MSS_OPTION, PSH, RST, SYN, Connection, neighbour, served

# Says what it receives; ends a connection itself when it is sent "end".
SERVER = """
import socket
listener = socket.create_server(("", 7450))
print("serving", flush=True)
while True:
    with listener.accept()[0] as connection:
        print("accepted", flush=True)
        while (data := connection.recv(1000)) not in (b"", b"end"):
            print("received", data.decode(), flush=True)
"""


def _stamp(value: int, echo: int = 0) -> bytes:
    return b"\x01\x01\x08\x0a" + struct.pack("!II", value & 0xFFFFFFFF, echo)


def _opened(kit: Kit, stamp: int) -> tuple[Instance, Process, Connection]:
    instance, server = served(kit, SERVER)
    peer = neighbour(instance, 7450)
    _open(peer, stamp)
    server.said("accepted")
    return instance, server, peer


def _open(peer: Connection, stamp: int) -> None:
    peer.send(SYN, options=MSS_OPTION + _stamp(stamp))
    answer = peer.wait(lambda packet: bool(packet.flags & SYN))
    assert answer is not None
    peer.ack = answer.end
    peer.send(ACK, options=_stamp(stamp + 1))


def test_a_segment_with_an_old_timestamp_is_acknowledged_and_not_read(kit: Kit) -> None:
    # The peer's clock wraps while the connection is open.
    instance, server, peer = _opened(kit, 0xFFFFFFF0)
    peer.send(ACK | PSH, b"first", options=_stamp(5))
    server.said("received first")
    peer.wire.drain()
    peer.send(ACK | PSH, b"older", seq=peer.seq, options=_stamp(0xFFFFFFFF))
    answer = peer.wait()
    assert answer is not None
    assert answer.ack == peer.seq & 0xFFFFFFFF, "an acknowledgment of what is expected"
    peer.send(ACK | PSH, b"later", options=_stamp(5))
    server.said("received later")
    peer.send(ACK | PSH, b"plain")
    server.said("received plain")
    assert "older" not in server.output()
    instance.stop()


def test_a_reset_needs_no_timestamp(kit: Kit) -> None:
    instance, server, peer = _opened(kit, 1000)
    peer.send(ACK | PSH, b"first", options=_stamp(2000))
    server.said("received first")
    peer.send(RST | ACK, options=_stamp(500))
    server.said("ConnectionResetError")
    instance.stop()


def test_an_old_syn_does_not_end_a_time_wait(kit: Kit) -> None:
    instance, server, peer = _opened(kit, 1000)
    peer.send(ACK | PSH, b"end", options=_stamp(2000))
    end = peer.wait(lambda packet: bool(packet.flags & FIN))
    assert end is not None
    peer.ack = end.end
    peer.send(ACK | FIN, options=_stamp(3000))
    assert peer.wait(lambda packet: packet.ack == peer.seq & 0xFFFFFFFF) is not None
    peer.wire.drain()
    peer.send(SYN, seq=peer.seq + 100_000, options=MSS_OPTION + _stamp(2500))
    answer = peer.wait()
    assert answer is not None
    assert not answer.flags & SYN
    assert answer.ack == peer.seq & 0xFFFFFFFF
    peer.seq += 100_000
    _open(peer, 4000)
    assert server.output().count("accepted") >= 1
    peer.send(ACK | PSH, b"again", options=_stamp(4100))
    server.said("received again")
    instance.stop()
