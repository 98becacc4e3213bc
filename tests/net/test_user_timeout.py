# SPDX-License-Identifier: MulanPSL-2.0
"""TCP_USER_TIMEOUT (RFC 5482): how long data may go unacknowledged, or a keepalive probe unanswered.

invented neighbours, 10.91.0.x -- tap gz-NAME -- stack 10.91.0.2
"""

from __future__ import annotations

import re

from kit.lab import Kit
from kit.packets import ACK, neighbour, served
from kit.waiting import until

# Of four connections: what is sent has no answer, a window stays shut, a probe has no answer, no limit is set.
SERVER = """
import socket, threading, time
TCP = socket.IPPROTO_TCP
listener = socket.create_server(("", 7460))
print("serving", flush=True)
def wait(connection, number):
    began = time.monotonic()
    try:
        connection.recv(1)
        print("read", number, flush=True)
    except OSError as error:
        print("ended", number, error.errno, time.monotonic() - began, flush=True)
connections = [listener.accept()[0] for _ in range(4)]
for number, connection in enumerate(connections):
    if number < 3:
        connection.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 1500)
    if number == 2:
        for option, value in ((TCP, socket.TCP_KEEPIDLE), 1), ((TCP, socket.TCP_KEEPINTVL), 1), \\
                             ((TCP, socket.TCP_KEEPCNT), 100), ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1):
            connection.setsockopt(*option, value)
    else:
        connection.sendall(b"x" * 100)
    threading.Thread(target=wait, args=(connection, number)).start()
"""
ETIMEDOUT = 110


def test_a_peer_that_stays_silent_is_given_up_after_its_time(kit: Kit) -> None:
    instance, server = served(kit, SERVER)
    peers = [neighbour(instance, 7460) for _ in range(4)]
    peers[1].window = 0
    for peer in peers:
        peer.open()
    segment = peers[3].wait(lambda packet: bool(packet.data))
    assert segment is not None
    until(lambda: server.output().count("ended") == 3, f"three connections to end; it said:\n{server.output()}", 15)
    ended = re.findall(r"ended (\d) (\d+) ([\d.]+)", server.output())
    assert sorted((int(number), int(error)) for number, error, _ in ended) == [(n, ETIMEDOUT) for n in range(3)]
    for number, _, seconds in ended:
        assert 1.3 <= float(seconds) < 10, (number, seconds)
    # Its data had no answer for as long, but it has no such limit.
    peers[3].ack = segment.end
    peers[3].send(ACK, b"y")
    server.said("read 3")
    instance.stop()
