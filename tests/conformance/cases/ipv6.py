# SPDX-License-Identifier: MulanPSL-2.0
"""IPv6: TCP and UDP over it, dual-stack listeners."""

from __future__ import annotations

import socket

from conformance.env import T
from conformance.names import IN
from conformance.ops import RDHUP
from conformance.registry import HOST6, STACK6, case, table

INET6 = socket.AF_INET6
V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
SERVE = ("server", "both", "mixed")


def _ours(t: T) -> str:
    return "::1" if t.mode.here.startswith("127.") else STACK6


def _theirs(t: T) -> str:
    return HOST6 if t.mode.wire else _ours(t)


@case(SERVE, "ipv6")
def ipv6_serve(t: T) -> None:
    listener, address = t.listener(host=_ours(t))
    p = t.dial(address)
    a = t.accepted(listener, "a")
    a.getsockname()
    a.getpeername()
    p.send(b"hello")
    a.recv()
    a.send(b"hi")
    p.recv()
    p.close()
    a.wait(RDHUP)
    a.recv()


@case(("client", "both", "loopback"), "ipv6")
def ipv6_connect(t: T) -> None:
    listener, address = t.listener(end=t.peer, host=_theirs(t))
    s = t.socket(family=INET6)
    s.connect(address)
    s.getsockname()
    s.getpeername()
    p = t.accepted(listener, "p")
    s.send_all(100_000)
    p.recv_all(100_000)


@case(("client", "both", "loopback"), "ipv6")
def ipv6_refused(t: T) -> None:
    s = t.socket(family=INET6)
    s.connect((_theirs(t), t.port()))


@table({"dual": (0,), "v6only": (1,)}, SERVE, "ipv6")
def ipv6_listener_and_ipv4_clients(t: T, only: int) -> None:
    listener = t.socket("l", family=INET6)
    port = t.port()
    listener.setsockopt(*V6ONLY, only, "V6ONLY")
    listener.bind(("::", port))
    listener.listen()
    p = t.socket("p", end=t.peer)
    p.connect((t.here, port))
    if not only:
        a = t.accepted(listener, "a")
        a.getpeername()
        a.getsockname()
        a.send(b"mapped")
        p.recv()
    p6 = t.socket("p6", family=INET6, end=t.peer)
    p6.connect((_ours(t), port))
    t.accepted(listener, "a6").getpeername()


@case(SERVE, "ipv6")
def ipv6_reset_and_epoll(t: T) -> None:
    listener, address = t.listener(host=_ours(t))
    p = t.dial(address)
    a = t.accepted(listener, "a")
    ep = t.epoll()
    ep.add(a, IN)
    p.reset()
    ep.wait()
    a.recv()


@case(("server", "both", "loopback", "mixed"), "ipv6", "udp")
def ipv6_datagrams(t: T) -> None:
    u, here = t.udp(host=_ours(t))
    p, there = t.udp("p", t.peer, _theirs(t))
    p.sendto(b"question", here)
    u.wait(IN)
    u.recvfrom()
    u.sendto(b"answer", there)
    p.recvfrom()


@case(("client", "loopback"))
def ipv6_socket_to_a_mapped_address(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket(family=INET6)
    s.connect((f"::ffff:{t.there}", int(address[1])))
    s.getpeername()
    s.send(b"mapped")
    t.accepted(listener, "p").recv()


@case(("server", "loopback"))
def ipv6_option_v6only(t: T) -> None:
    s = t.socket(family=INET6)
    s.getsockopt(*V6ONLY, "V6ONLY")
    s.setsockopt(*V6ONLY, 1, "V6ONLY")
    s.getsockopt(*V6ONLY, "V6ONLY")
    s.bind(("::", t.port()))
    s.setsockopt(*V6ONLY, 0, "V6ONLY")
    s.getsockname()
