# SPDX-License-Identifier: MulanPSL-2.0
"""Datagrams over IPv6: the cases of udp.py and udp_more.py once more, and what IPv6 alone has."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from conformance.cases import udp, udp_more
from conformance.env import T
from conformance.libc import Errno
from conformance.names import ERR, IN
from conformance.ops import pattern
from conformance.registry import CASES, add, case, table

INET6 = socket.AF_INET6
SOL_IP, SOL_IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
HOPS, V6ONLY, MTU_DISCOVER, RECVPKTINFO, PKTINFO, RECVHOPLIMIT, RECVTCLASS, TCLASS = 16, 26, 23, 49, 50, 51, 66, 67
OPTIONS = {"hops": HOPS, "v6only": V6ONLY, "mtu-discover": MTU_DISCOVER, "recvpktinfo": RECVPKTINFO}
OPTIONS |= {"recvhoplimit": RECVHOPLIMIT, "recvtclass": RECVTCLASS, "tclass": TCLASS, "nonsense": 9999}
MODES = ("server", "both")
# Those are about IPv4, or have a size that is another one over IPv6.
NOT_AGAIN = (
    "udp-broadcast*",
    "udp-ttl-and-tos*",
    "udp-no-fragments*",
    "udp-size-biggest",
    "udp-too-big",
    "udp-pktinfo*",
)


def _again(function: Callable[[T], None]) -> Callable[[T], None]:
    def run(t: T) -> None:
        t.over_ipv6()
        function(t)

    return run


def _enter() -> None:
    first = [name for name in CASES if name.startswith("udp-")]
    assert udp.BOTH_ENDS == udp_more.BOTH_ENDS
    for name in first:
        modes = tuple(mode for mode in CASES[name].modes if mode in MODES)
        if modes and not any(name.startswith(other.rstrip("*")) for other in NOT_AGAIN):
            add(name.replace("udp-", "udp-ipv6-", 1), _again(CASES[name].function), modes, ("udp", "ipv6"))


_enter()


@table({"mtu": (1452,), "more": (1453,), "biggest": (65487,)}, MODES, "udp", "ipv6")
def udp_ipv6_sizes(t: T, count: int) -> None:
    t.over_ipv6()
    udp.exchange(t, count)


@case(MODES, "udp", "ipv6")
def udp_ipv6_too_big(t: T) -> None:
    t.over_ipv6()
    u, _ = t.udp()
    _, there = t.udp("p", t.peer)
    u.sendto(bytes(65500), there)
    u.sendto(bytes(65528), there)
    u.sendto(bytes(70000), there)


@table({name: (number,) for name, number in OPTIONS.items()}, MODES, "udp", "ipv6")
def udp_ipv6_own_option(t: T, name: int) -> None:
    t.over_ipv6()
    u, _ = t.udp()
    u.getsockopt(SOL_IPV6, name)
    u.setsockopt(SOL_IPV6, name, 1)
    u.getsockopt(SOL_IPV6, name)
    u.setsockopt(SOL_IPV6, name, 1, "short", 1)
    u.setsockopt(SOL_IPV6, name, 3000)
    u.getsockopt(SOL_IPV6, name)


@table({"dual": (0,), "v6only": (1,)}, MODES, "udp", "ipv6")
def udp_ipv6_on_any_address_and_ipv4(t: T, only: int) -> None:
    ours, theirs = t.here, t.there
    u = t.socket("u", socket.SOCK_DGRAM, INET6)
    port = t.port()
    u.setsockopt(SOL_IPV6, V6ONLY, only, "V6ONLY")
    u.setsockopt(SOL_IPV6, RECVPKTINFO, 1, "RECVPKTINFO")
    u.bind(("::", port))
    p, there = t.udp("p", t.peer, theirs)
    p.sendto(b"over IPv4", (ours, port))
    if not only:
        u.wait(IN)
        u.control()
        p.sendto(b"again", (ours, port))
        u.recvfrom()
    u.sendto(b"mapped", (f"::ffff:{theirs}", int(there[1])))
    u.sendto(b"not mapped", there)
    for _ in range(0 if only else 2):
        p.recvfrom()
    t.over_ipv6()
    q, there = t.udp("q", t.peer)
    q.sendto(b"over IPv6", (t.here, port))
    u.wait(IN)
    u.control()
    u.sendto(b"answer", there)
    q.recvfrom()


@table({"dual": (0,), "v6only": (1,)}, MODES, "udp", "ipv6")
def udp_ipv6_connects_to_a_mapped_address(t: T, only: int) -> None:
    u = t.socket("u", socket.SOCK_DGRAM, INET6)
    p, there = t.udp("p", t.peer)
    u.setsockopt(SOL_IPV6, V6ONLY, only, "V6ONLY")
    u.connect((f"::ffff:{t.there}", int(there[1])))
    u.getpeername()
    if not only:
        u.getsockname()
        u.send(b"mapped")
        got = p.recvfrom()
        p.sendto(b"back", got[1])
        u.recvfrom()


@case(MODES, "udp", "ipv6")
def udp_ipv6_both_families_on_one_port(t: T) -> None:
    port = t.port()
    four, five = t.there, t.here
    v = t.socket("v", socket.SOCK_DGRAM)
    v.bind(("0.0.0.0", port))
    u = t.socket("u", socket.SOCK_DGRAM, INET6)
    u.bind(("::", port))
    u.setsockopt(SOL_IPV6, V6ONLY, 1, "V6ONLY")
    u.bind(("::", port))
    p, _ = t.udp("p", t.peer, four)
    p.sendto(b"four", (five, port))
    v.recvfrom()
    t.over_ipv6()
    q, _ = t.udp("q", t.peer)
    q.sendto(b"six", (t.here, port))
    u.recvfrom()


@case(("server",), "udp", "ipv6")
def udp_ipv6_told_of_each_datagram(t: T) -> None:
    t.over_ipv6()
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    for end in (u, p):
        for name in (RECVPKTINFO, RECVHOPLIMIT, RECVTCLASS):
            end.setsockopt(SOL_IPV6, name, 1)
        end.setsockopt(SOL_IPV6, HOPS, 17, "HOPS")
        end.setsockopt(SOL_IPV6, TCLASS, 0x2C, "TCLASS")
    p.sendto(b"marked", here)
    u.wait(IN)
    u.control()
    u.sendto(b"as well", there)
    p.wait(IN)
    p.control()
    p.sendto(b"cut short", here)
    u.wait(IN)
    u.control(40)


@case(("server",), "udp")
def udp_told_of_each_datagram(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    for name in (8, 12, 13):
        u.setsockopt(SOL_IP, name, 1)
    p.setsockopt(SOL_IP, socket.IP_TTL, 17, "TTL")
    p.setsockopt(SOL_IP, socket.IP_TOS, 0x2C, "TOS")
    p.sendto(b"marked", here)
    u.wait(IN)
    u.control()


@case(("server",), "udp", "ipv6")
def udp_ipv6_no_fragments_wanted(t: T) -> None:
    t.over_ipv6()
    u, _ = t.udp()
    p, there = t.udp("p", t.peer)
    u.connect(there)
    u.getsockopt(SOL_IPV6, 24, "IPV6_MTU")
    u.setsockopt(SOL_IPV6, MTU_DISCOVER, 2, "IPV6_MTU_DISCOVER")
    u.send(pattern(1453))
    u.send(pattern(1452))
    p.recvfrom(2000)


@case(MODES, "udp", "ipv6")
def udp_ipv6_sends_from_an_address(t: T) -> None:
    t.over_ipv6()
    u, address = t.udp(host="::")
    p, there = t.udp("p", t.peer)
    own = socket.inet_pton(INET6, t.here)
    u.sendmsg([b"from here"], 0, there, (SOL_IPV6, PKTINFO, struct.pack("16si", own, 0)))
    p.recvfrom()
    p.sendto(b"answer", (t.here, int(address[1])))
    u.recvfrom()


@case(MODES, "udp", "ipv6")
def udp_ipv6_refused_tells_each_time(t: T) -> None:
    t.over_ipv6()
    u = t.socket("u", socket.SOCK_DGRAM)
    u.connect((t.there, t.port()))
    for _ in range(2):
        u.send(b"anybody?")
        u.wait(ERR)
        u.error()


def _int(number: int) -> bytes:
    return struct.pack("=i", number)


@table(
    {
        "hoplimit": (6, SOL_IPV6, 52, _int(9)),
        "usual-hoplimit": (6, SOL_IPV6, 52, _int(-1)),
        "large-hoplimit": (6, SOL_IPV6, 52, _int(256)),
        "tclass": (6, SOL_IPV6, TCLASS, _int(0x2C)),
        "short-tclass": (6, SOL_IPV6, TCLASS, b"\x2c"),
        "ttl-over-ipv6": (6, SOL_IP, socket.IP_TTL, _int(9)),
        "foreign-source": (6, SOL_IPV6, PKTINFO, struct.pack("16si", socket.inet_pton(INET6, "fd00:77::7"), 0)),
        "ttl": (4, SOL_IP, socket.IP_TTL, _int(9)),
        "zero-ttl": (4, SOL_IP, socket.IP_TTL, _int(0)),
        "tos": (4, SOL_IP, socket.IP_TOS, _int(0x2C)),
        "short-tos": (4, SOL_IP, socket.IP_TOS, b"\x2c"),
        "large-tos": (4, SOL_IP, socket.IP_TOS, _int(256)),
    },
    MODES,
    "udp",
    "ipv6",
)
def udp_marked_by_a_control_message(t: T, family: int, level: int, kind: int, data: bytes) -> None:
    if family == 6:
        t.over_ipv6()
    u, _ = t.udp()
    p, there = t.udp("p", t.peer)
    for name in (RECVHOPLIMIT, RECVTCLASS) if family == 6 else (12, 13):
        p.setsockopt(SOL_IPV6 if family == 6 else SOL_IP, name, 1)
    marked = u.sendmsg([b"marked"], 0, there, (level, kind, data))
    u.sendto(b"not marked", there)
    for _ in range(1 if isinstance(marked, Errno) else 2):
        p.wait(IN)
        p.control()
