# SPDX-License-Identifier: MulanPSL-2.0
"""Socket options: what they say at first, what they say after being set, and how they refuse."""

from __future__ import annotations

import socket
import struct

from conformance.env import T
from conformance.names import IN, OUT
from conformance.ops import RDHUP
from conformance.registry import PAIR, SOLO, case, table

SOL, TCP, IP = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP
BOOLEANS = {
    "nodelay": (TCP, socket.TCP_NODELAY),
    "cork": (TCP, socket.TCP_CORK),
    "keepalive": (SOL, socket.SO_KEEPALIVE),
    "reuseaddr": (SOL, socket.SO_REUSEADDR),
    "reuseport": (SOL, socket.SO_REUSEPORT),
    "oobinline": (SOL, socket.SO_OOBINLINE),
    "broadcast": (SOL, socket.SO_BROADCAST),
    "dontroute": (SOL, socket.SO_DONTROUTE),
    "timestamp": (SOL, 29),
    "recverr": (IP, 11),
}
NUMBERS = {
    "keepidle": (TCP, socket.TCP_KEEPIDLE, 77, 0, 40000),
    "keepintvl": (TCP, socket.TCP_KEEPINTVL, 33, 0, 40000),
    "keepcnt": (TCP, socket.TCP_KEEPCNT, 4, 0, 200),
    "user-timeout": (TCP, socket.TCP_USER_TIMEOUT, 5000, 0, -1),
    "syncnt": (TCP, socket.TCP_SYNCNT, 3, 0, 300),
    "linger2": (TCP, socket.TCP_LINGER2, 20, -1, 100000),
    "notsent-lowat": (TCP, 25, 4096, 0, -1),
    "priority": (SOL, socket.SO_PRIORITY, 5, 0, 6),
    "rcvlowat": (SOL, socket.SO_RCVLOWAT, 10, 0, -1),
    "tos": (IP, socket.IP_TOS, 0x10, 0, 256),
    "ttl": (IP, socket.IP_TTL, 33, 0, 256),
}


@table(BOOLEANS)
def option_switch(t: T, level: int, name: int) -> None:
    s, p = t.pair()
    s.getsockopt(level, name)
    for value in (1, 5, 0):
        s.setsockopt(level, name, value)
        s.getsockopt(level, name)
    s.send(b"goes on")
    p.recv()


@table(NUMBERS)
def option_number(t: T, level: int, name: int, good: int, low: int, high: int) -> None:
    s, p = t.pair()
    s.getsockopt(level, name)
    for value in (good, low, high):
        s.setsockopt(level, name, value)
        s.getsockopt(level, name)
    s.setsockopt(level, name, good)
    s.send(b"goes on")
    p.recv()


@table({**BOOLEANS, **{name: row[:2] for name, row in NUMBERS.items()}}, SOLO)
def option_before_connecting(t: T, level: int, name: int) -> None:
    s = t.socket()
    s.getsockopt(level, name)
    s.setsockopt(level, name, 1)
    s.getsockopt(level, name)


@table({"none": (0,), "1": (1,), "2": (2,), "3": (3,)})
def option_short_set(t: T, length: int) -> None:
    s, _ = t.pair()
    s.setsockopt(TCP, socket.TCP_NODELAY, 1, "NODELAY", length)
    s.setsockopt(SOL, socket.SO_KEEPALIVE, 1, "KEEPALIVE", length)


@table({"none": (0,), "1": (1,), "2": (2,), "8": (8,)})
def option_room_get(t: T, room: int) -> None:
    s, _ = t.pair()
    s.setsockopt(TCP, socket.TCP_KEEPIDLE, 259, "KEEPIDLE")
    s.getsockopt(TCP, socket.TCP_KEEPIDLE, "KEEPIDLE", room)
    s.getsockopt(SOL, socket.SO_TYPE, "TYPE", room)


@table(
    {
        "socket-level": (SOL, 9999),
        "tcp-level": (TCP, 9999),
        "ip-level": (IP, 9999),
        "level": (9999, 1),
        "udp-on-tcp": (socket.IPPROTO_UDP, 1),
        "ipv6-on-ipv4": (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
        "peercred": (SOL, socket.SO_PEERCRED),
        "peersec": (SOL, socket.SO_PEERSEC),
        "ulp": (TCP, 31),
        "md5": (TCP, 14),
        "repair": (TCP, 19),
    }
)
def option_unknown(t: T, level: int, name: int) -> None:
    s, _ = t.pair()
    s.getsockopt(level, name)
    s.setsockopt(level, name, 1)


@table({"type": ("SO_TYPE",), "domain": ("SO_DOMAIN",), "protocol": ("SO_PROTOCOL",), "acceptconn": ("SO_ACCEPTCONN",),
        "error": ("SO_ERROR",)})  # fmt: skip
def option_read_only(t: T, name: str) -> None:
    s, _ = t.pair()
    s.getsockopt(SOL, getattr(socket, name), name)
    s.setsockopt(SOL, getattr(socket, name), 1, name)


@table({"rcv": (socket.SO_RCVBUF,), "snd": (socket.SO_SNDBUF,)}, SOLO)
def buffer_size_before_connecting(t: T, name: int) -> None:
    s = t.socket()
    for value in (1, 5000, 20000, 65536):
        s.setsockopt(SOL, name, value)
        s.getsockopt(SOL, name)


@table({"rcv": (socket.SO_RCVBUF,), "snd": (socket.SO_SNDBUF,)})
def buffer_size_connected(t: T, name: int) -> None:
    s, p = t.pair()
    for value in (20000, 65536):
        s.setsockopt(SOL, name, value)
        s.getsockopt(SOL, name)
    p.begin("send_all", 300000, 1, 65536)
    s.recv_all(300000)
    p.finish("send_all")
    p.begin("recv_all", 300000, 65536)
    s.send_all(300000)
    p.finish("recv_all")


@case()
def small_receive_buffer_limits_the_sender(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(SOL, socket.SO_RCVBUF, 4096, "RCVBUF")
    p.begin("send_all", 30000, 4, 65536)
    s.recv_all(30000, 1000)
    p.finish("send_all")


@case()
def small_send_buffer_blocks_early(t: T) -> None:
    s, p = t.pair(nonblock=True)
    s.setsockopt(SOL, socket.SO_SNDBUF, 8192, "SNDBUF")
    p.begin("recv_all", 100000, 65536)
    s.send_all(100000)
    p.finish("recv_all")


@case()
def small_send_buffer_stays_small(t: T) -> None:
    s, p = t.pair(nonblock=True)
    s.setsockopt(SOL, socket.SO_SNDBUF, 4096, "SNDBUF")
    for _ in range(3):
        sent = s.quietly("send", b"x" * 1_000_000)
        t.note("some", 0 < sent < 200_000)
        p.quietly("recv_all", sent)
        s.wait(OUT)


@case()
def maxseg_is_sane(t: T) -> None:
    s, _ = t.pair()
    value = s.quietly("getsockopt", TCP, socket.TCP_MAXSEG, 4)
    t.note("between", 500 < value < 65536)
    s.setsockopt(TCP, socket.TCP_MAXSEG, 50)
    s.setsockopt(TCP, socket.TCP_MAXSEG, 70000)


@case(SOLO)
def maxseg_before_connecting(t: T) -> None:
    s = t.socket()
    s.getsockopt(TCP, socket.TCP_MAXSEG, "MAXSEG")
    s.setsockopt(TCP, socket.TCP_MAXSEG, 1000, "MAXSEG")
    s.getsockopt(TCP, socket.TCP_MAXSEG, "MAXSEG")


@case()
def maxseg_limits_segments(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    s.setsockopt(TCP, socket.TCP_MAXSEG, 600, "MAXSEG")
    s.quietly("connect", address)
    t.accepted(listener, "p")
    t.note("at most 600", s.quietly("getsockopt", TCP, socket.TCP_MAXSEG, 4) <= 600)


@table({"established": (1,), "listen": (10,), "close": (7,)})
def tcp_info_state(t: T, state: int) -> None:
    if state == 1:
        s, _ = t.pair()
    elif state == 10:
        s, _ = t.listener()
    else:
        s = t.socket()
    raw = s.quietly("getsockopt", TCP, socket.TCP_INFO, 104)
    t.note("state", raw[0])
    t.note("long enough", len(raw) >= 104)
    s.getsockopt(TCP, socket.TCP_INFO, "INFO", 1)


@case()
def tcp_info_is_true(t: T) -> None:
    s, p = t.pair()
    s.send(b"x" * 5000)
    p.recv_all(5000)
    p.send(b"ok")
    s.wait(IN)
    info = s.quietly("getsockopt", TCP, socket.TCP_INFO, 232)
    (rtt,) = struct.unpack_from("=I", info, 68)
    (mss,) = struct.unpack_from("=I", info, 16)
    (cwnd,) = struct.unpack_from("=I", info, 80)
    t.note("rtt", 0 < rtt < 1_000_000)
    t.note("mss", 500 < mss < 65536)
    t.note("cwnd", cwnd > 0)


@case(SOLO)
def quickack_and_defer_accept(t: T) -> None:
    s = t.socket()
    for name in ("TCP_QUICKACK", "TCP_DEFER_ACCEPT"):
        s.getsockopt(TCP, getattr(socket, name), name)
        s.setsockopt(TCP, getattr(socket, name), 0, name)
        s.getsockopt(TCP, getattr(socket, name), name)


@case()
def quickack_connected(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(TCP, socket.TCP_QUICKACK, 1, "QUICKACK")
    s.getsockopt(TCP, socket.TCP_QUICKACK, "QUICKACK")
    p.send(b"x")
    s.recv()


@case()
def cork_holds_back_and_lets_go(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(TCP, socket.TCP_CORK, 1, "CORK")
    s.send(b"corked")
    p.poll(IN, 30)
    s.setsockopt(TCP, socket.TCP_CORK, 0, "CORK")
    p.wait(IN)
    p.recv()


@case()
def cork_ends_with_nodelay(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(TCP, socket.TCP_CORK, 1, "CORK")
    s.send(b"corked")
    s.setsockopt(TCP, socket.TCP_NODELAY, 1, "NODELAY")
    p.poll(IN, 30)
    s.shutdown(socket.SHUT_WR)
    p.wait(RDHUP)
    p.queued(6)
    p.recv()


@case()
def cork_full_segments_go(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(TCP, socket.TCP_CORK, 1, "CORK")
    p.begin("recv_all", 200000, 65536)
    s.send_all(200000)
    s.close()
    p.finish("recv_all")


@case()
def defer_accept_waits_for_data(t: T) -> None:
    listener, address = t.listener()
    listener.setsockopt(TCP, socket.TCP_DEFER_ACCEPT, 5, "DEFER_ACCEPT")
    p = t.dial(address)
    listener.poll(IN, 60)
    p.send(b"data")
    listener.wait(IN)
    listener.accept().recv()


@case()
def user_timeout_nodelay_survive_data(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(TCP, socket.TCP_NODELAY, 1, "NODELAY")
    s.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 3000, "USER_TIMEOUT")
    for _ in range(5):
        s.send(b"x")
        p.recv()
    s.getsockopt(TCP, socket.TCP_NODELAY, "NODELAY")
    s.getsockopt(TCP, socket.TCP_USER_TIMEOUT, "USER_TIMEOUT")


@case()
def rcvlowat_holds_readiness(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(SOL, socket.SO_RCVLOWAT, 10, "RCVLOWAT")
    p.send(b"12345")
    s.queued(5)
    s.poll(IN)
    p.send(b"67890")
    s.queued(10)
    s.poll(IN)
    s.recv(20)


@case()
def rcvlowat_is_bounded_by_our_own_buffer(t: T) -> None:
    a, _ = t.pair()
    b, _ = t.pair()
    a.setsockopt(SOL, socket.SO_RCVBUF, 8192)
    a.setsockopt(SOL, socket.SO_RCVLOWAT, 1 << 20)
    a.getsockopt(SOL, socket.SO_RCVLOWAT)
    b.setsockopt(SOL, socket.SO_RCVLOWAT, 1 << 20)
    b.getsockopt(SOL, socket.SO_RCVLOWAT)


@case()
def congestion_control(t: T) -> None:
    s, _ = t.pair()
    name = s.quietly("getsockopt", TCP, socket.TCP_CONGESTION, 16)
    t.note("has one", len(name.rstrip(b"\0")) > 0)
    s.setsockopt(TCP, socket.TCP_CONGESTION, b"no-such", "CONGESTION")


@case(PAIR)
def bindtodevice(t: T) -> None:
    s, _ = t.pair()
    s.setsockopt(SOL, socket.SO_BINDTODEVICE, b"no-such-dev\0", "BINDTODEVICE")
    s.getsockopt(SOL, socket.SO_BINDTODEVICE, "BINDTODEVICE", 16)


@case(PAIR)
def options_on_dup(t: T) -> None:
    s, _ = t.pair()
    d = s.dup("d")
    d.setsockopt(TCP, socket.TCP_NODELAY, 1, "NODELAY")
    s.getsockopt(TCP, socket.TCP_NODELAY, "NODELAY")
    s.close()
    d.getsockopt(TCP, socket.TCP_NODELAY, "NODELAY")
    d.poll(OUT)


@case(SOLO)
def option_bad_descriptors(t: T) -> None:
    reads, _ = t.pipe()
    for fd in (-1, 7001, reads):
        t.note("get", t.me.run("getsockopt", fd, SOL, socket.SO_TYPE, 4))
        t.note("set", t.me.run("setsockopt", fd, SOL, socket.SO_KEEPALIVE, 1))


@case(("server", "both"), "udp")
def udp_joins_a_group_by_options_of_any_family(t: T) -> None:
    join, leave, block, unblock, join_source, leave_source = 42, 45, 43, 44, 46, 47
    device = struct.pack("I4x", socket.if_nametoindex("lo"))
    group, source = (
        struct.pack("HH4s120x", socket.AF_INET, 0, socket.inet_aton(address)) for address in ("239.1.2.3", "127.0.0.9")
    )
    u = t.socket("u", socket.SOCK_DGRAM)
    u.bind((t.any, t.port()))
    u.setsockopt(socket.IPPROTO_IP, join, device + group, "the group")
    u.setsockopt(socket.IPPROTO_IP, join, device + group, "the group again")
    for option in (block, unblock):
        u.setsockopt(socket.IPPROTO_IP, option, device + group + source, "a sender")
    u.setsockopt(socket.IPPROTO_IP, leave, device + group, "the group")
    for option in (join_source, leave_source):
        u.setsockopt(socket.IPPROTO_IP, option, device + group + source, "one sender")
    u.setsockopt(socket.IPPROTO_IP, 38, b"nonsense", "no membership")
