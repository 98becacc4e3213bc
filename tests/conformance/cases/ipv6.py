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


@case(("server", "both", "loopback", "mixed"), "udp", "ipv6")
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


@case(("both", "loopback"), "ipv6")
def ipv6_pair_from_an_ipv4_client(t: T) -> None:
    listener = t.socket("l", family=INET6)
    port = t.port()
    listener.bind(("::", port))
    listener.listen()
    p = t.socket("p", end=t.peer)
    p.connect((t.here, port))
    a = t.accepted(listener, "a")
    a.getsockname()
    a.getpeername()
    p.getpeername()
    p.send_all(100_000)
    a.recv_all(100_000)
    p.close()
    a.recv()


@table({"ipv4": ("0.0.0.0", "::"), "ipv6": ("::", "0.0.0.0")}, SERVE, "ipv6")
def ipv6_both_families_on_one_port(t: T, first: str, second: str) -> None:
    port = t.port()
    for name, host in (("l1", first), ("l2", second)):
        s = t.socket(name, family=INET6 if ":" in host else socket.AF_INET)
        if ":" in host:
            s.setsockopt(*V6ONLY, 1, "V6ONLY")
        s.bind((host, port))
        s.listen()
        p = t.socket(f"p-{name}", family=INET6 if ":" in host else socket.AF_INET, end=t.peer)
        p.connect((_ours(t) if ":" in host else t.here, port))
        t.accepted(s, f"a-{name}").getpeername()


@case(("client", "both", "loopback"), "ipv6")
def ipv6_v6only_socket_to_a_mapped_address(t: T) -> None:
    s = t.socket(family=INET6)
    s.setsockopt(*V6ONLY, 1, "V6ONLY")
    s.connect((f"::ffff:{t.there}", t.port()))


@table({"ipv4-socket": (socket.AF_INET,), "ipv6-socket": (INET6,)}, ("client", "both", "loopback"), "ipv6")
def ipv6_connect_to_the_other_family(t: T, family: int) -> None:
    s = t.socket(family=family)
    s.connect((t.there if family == INET6 else _theirs(t), t.port()))


@case(("client", "both", "loopback"), "ipv6")
def ipv6_options_of_a_connection(t: T) -> None:
    listener, address = t.listener(end=t.peer, host=_theirs(t))
    s = t.socket(family=INET6)
    for name in ("IPV6_UNICAST_HOPS", "IPV6_TCLASS", "IPV6_V6ONLY"):
        s.getsockopt(socket.IPPROTO_IPV6, getattr(socket, name, 16), name)
    s.setsockopt(socket.IPPROTO_IPV6, 16, 33, "IPV6_UNICAST_HOPS")
    s.connect(address)
    t.accepted(listener, "p")
    for name, number in (("IPV6_UNICAST_HOPS", 16), ("IPV6_TCLASS", 67), ("IPV6_V6ONLY", 26)):
        s.getsockopt(socket.IPPROTO_IPV6, number, name)
    s.setsockopt(socket.IPPROTO_IPV6, 67, 0x20, "IPV6_TCLASS")
    s.getsockopt(socket.IPPROTO_IPV6, 67, "IPV6_TCLASS")
    s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN, "SO_DOMAIN")


@case(("client", "both", "loopback"), "ipv6")
def ipv6_bound_client(t: T) -> None:
    listener, address = t.listener(end=t.peer, host=_theirs(t))
    s = t.socket(family=INET6)
    s.bind((_ours(t), t.port()))
    s.getsockname()
    s.connect(address)
    s.getsockname()
    t.accepted(listener, "p").getpeername()


@case(("client", "both", "loopback"), "ipv6")
def ipv6_short_name(t: T) -> None:
    listener, address = t.listener(end=t.peer, host=_theirs(t))
    s = t.socket(family=INET6)
    s.connect(address)
    t.accepted(listener, "p").send(b"x")
    s.recv()
    s.shutdown(socket.SHUT_WR)
