# SPDX-License-Identifier: MulanPSL-2.0
"""Datagrams, connected and not."""

from __future__ import annotations

import socket

from conformance.env import T
from conformance.names import ERR, ET, IN, OUT
from conformance.ops import pattern
from conformance.registry import PAIR, SOLO, case, table

PEEK, DONTWAIT, TRUNC, WAITALL = socket.MSG_PEEK, socket.MSG_DONTWAIT, socket.MSG_TRUNC, socket.MSG_WAITALL
BOTH_ENDS = ("server", "both", "loopback", "mixed")


@case(BOTH_ENDS, "udp")
def udp_question_and_answer(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    p.sendto(b"question", here)
    u.wait(IN)
    got = u.recvfrom()
    u.sendto(b"answer", got[1])
    p.recvfrom()


@case(BOTH_ENDS, "udp")
def udp_unbound_sender_gets_a_port(t: T) -> None:
    u = t.socket("u", socket.SOCK_DGRAM)
    p, there = t.udp("p", t.peer)
    u.sendto(b"from nowhere", there)
    got = p.recvfrom()
    u.getsockname()
    p.sendto(b"back", got[1])
    u.recvfrom()


@case(BOTH_ENDS, "udp")
def udp_connected(t: T) -> None:
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    u.connect(there)
    u.getpeername()
    u.send(b"one")
    p.recvfrom()
    p.sendto(b"two", here)
    u.recv()
    u.write(b"three")
    p.recvfrom()
    u.poll()


@case(BOTH_ENDS, "udp")
def udp_connected_hears_only_its_peer(t: T) -> None:
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    other, _ = t.udp("other", t.peer)
    u.connect(there)
    other.sendto(b"stranger", here)
    p.sendto(b"friend", here)
    u.recv()
    u.recv(100, DONTWAIT)


@case(BOTH_ENDS, "udp")
def udp_disconnect(t: T) -> None:
    u, _ = t.udp()
    _, there = t.udp("p", t.peer)
    u.connect(there)
    u.connect(None)
    u.getpeername()
    u.send(b"x")


@table({"empty": (0,), "one": (1,), "mtu": (1472,), "big": (9000,), "biggest": (65507,)}, BOTH_ENDS, "udp")
def udp_size(t: T, count: int) -> None:
    exchange(t, count)


def exchange(t: T, count: int) -> None:
    """Send one datagram of `count` bytes each way."""
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    p.sendto(pattern(count), here)
    u.wait(IN)
    u.recvfrom(70000)
    u.sendto(pattern(count), there)
    p.wait(IN)
    p.recvfrom(70000)


@case(BOTH_ENDS, "udp")
def udp_too_big(t: T) -> None:
    u, _ = t.udp()
    _, there = t.udp("p", t.peer)
    u.sendto(bytes(65508), there)
    u.sendto(bytes(70000), there)


@case(BOTH_ENDS, "udp")
def udp_keeps_boundaries(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    for raw in (b"abc", b"", b"defgh"):
        p.sendto(raw, here)
    for _ in range(3):
        u.wait(IN)
        u.recv()


@case(BOTH_ENDS, "udp")
def udp_truncation(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    for _ in range(4):
        p.sendto(b"0123456789", here)
    u.wait(IN)
    u.recvfrom(4)
    u.recvfrom(4, TRUNC)
    u.recvmsg([4])
    u.recvmsg([4], TRUNC)


@case(BOTH_ENDS, "udp")
def udp_peek(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    p.sendto(b"first", here)
    p.sendto(b"second", here)
    u.wait(IN)
    u.recvfrom(100, PEEK)
    u.recvfrom(2, PEEK | TRUNC)
    u.recvfrom()
    u.wait(IN)
    u.recvfrom()
    u.recvfrom(100, DONTWAIT)


@case(BOTH_ENDS, "udp")
def udp_waitall_does_not_wait(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    p.sendto(b"short", here)
    u.recv(100, WAITALL)


@case(BOTH_ENDS, "udp")
def udp_fionread_is_the_first(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    p.sendto(b"12345", here)
    p.sendto(b"123", here)
    u.queued(5)
    u.recv()
    u.queued(3)


@case(BOTH_ENDS, "udp")
def udp_epoll(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    level, edge = t.epoll("level"), t.epoll("edge")
    level.add(u, IN)
    edge.add(u, IN | ET)
    level.now()
    p.sendto(b"one", here)
    level.wait()
    edge.wait()
    edge.now()
    p.sendto(b"two", here)
    edge.wait()
    u.recv()
    level.now()
    u.recv()
    level.now()


@case(BOTH_ENDS, "udp")
def udp_blocked_reader(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    task = t.spawn(lambda: u.recvfrom())
    task.blocked()
    p.sendto(b"wake up", here)
    task.join()


@case(BOTH_ENDS, "udp")
def udp_mmsg(t: T) -> None:
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    u.connect(there)
    u.sendmmsg([b"a", b"bb", b"ccc"])
    for _ in range(3):
        p.recvfrom()
    for raw in (b"dddd", b"ee"):
        p.sendto(raw, here)
    u.wait(IN)
    t.note("waits for both", u.quietly("recvmmsg", [10, 10], 0, 1.0))
    u.recvmmsg([10], DONTWAIT)


@case(BOTH_ENDS, "udp")
def udp_to_a_closed_port_when_connected(t: T) -> None:
    u, _ = t.udp()
    u.connect((t.there, t.port()))
    u.send(b"anybody there?")
    u.wait(ERR)
    u.error()
    u.send(b"again")
    u.wait(ERR)
    u.recv()
    u.poll()


@case(BOTH_ENDS, "udp")
def udp_shutdown(t: T) -> None:
    u, _ = t.udp()
    _, there = t.udp("p", t.peer)
    u.shutdown(socket.SHUT_RD)
    u.connect(there)
    u.shutdown(socket.SHUT_RD)
    u.recv(10, DONTWAIT)
    u.shutdown(socket.SHUT_WR)
    u.send(b"x", socket.MSG_NOSIGNAL)
    u.poll()


@case(SOLO, "udp")
def udp_fresh_calls(t: T) -> None:
    u = t.socket("u", socket.SOCK_DGRAM)
    u.poll()
    u.send(b"x")
    u.recv(10, DONTWAIT)
    u.listen()
    u.accept()
    u.getsockname()
    u.getpeername()


@table({"neither": (0,), "reuseaddr": (socket.SO_REUSEADDR,), "reuseport": (socket.SO_REUSEPORT,)}, SOLO, "udp")
def udp_bind_in_use(t: T, option: int) -> None:
    address = (t.here, t.port())
    for label in ("u1", "u2"):
        u = t.socket(label, socket.SOCK_DGRAM)
        if option:
            u.setsockopt(socket.SOL_SOCKET, option, 1)
        u.bind(address)


@case(BOTH_ENDS, "udp")
def udp_on_any_address(t: T) -> None:
    u, address = t.udp(host=t.any)
    p, _ = t.udp("p", t.peer)
    p.sendto(b"to one of yours", (t.here, int(address[1])))
    got = u.recvfrom()
    u.sendto(b"and back", got[1])
    p.recvfrom()


@case(PAIR[:1], "udp")
def udp_broadcast_needs_the_option(t: T) -> None:
    u, _ = t.udp()
    u.sendto(b"x", ("255.255.255.255", 9))


@case(BOTH_ENDS, "udp")
def udp_burst_in_order(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    for number in range(40):
        p.quietly("sendto", b"%d" % number, 0, here)
    t.note("order", [u.quietly("recv", 10) == b"%d" % number for number in range(40)])
    u.poll(IN | OUT)
