# SPDX-License-Identifier: MulanPSL-2.0
"""Datagrams: options, errors, limits, sharing."""

from __future__ import annotations

import socket
import struct

from conformance import libc
from conformance.env import T
from conformance.names import ERR, ET, IN, OUT
from conformance.ops import pattern, until
from conformance.registry import case, table

DONTWAIT = socket.MSG_DONTWAIT
BOTH_ENDS = ("server", "both", "loopback", "mixed")
WIRE = ("server", "both")
SOL_IP, PKTINFO, MTU_DISCOVER = socket.IPPROTO_IP, 8, 10
WAITFORONE = 0x10000


def _options(rows: list[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    return {name: (level, number) for name, level, number in rows}


@table(
    _options(
        [
            ("rcvbuf", socket.SOL_SOCKET, socket.SO_RCVBUF),
            ("sndbuf", socket.SOL_SOCKET, socket.SO_SNDBUF),
            ("broadcast", socket.SOL_SOCKET, socket.SO_BROADCAST),
            ("reuseport", socket.SOL_SOCKET, socket.SO_REUSEPORT),
            ("priority", socket.SOL_SOCKET, socket.SO_PRIORITY),
            ("rcvlowat", socket.SOL_SOCKET, socket.SO_RCVLOWAT),
            ("type", socket.SOL_SOCKET, socket.SO_TYPE),
            ("protocol", socket.SOL_SOCKET, socket.SO_PROTOCOL),
            ("acceptconn", socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
            ("tos", SOL_IP, socket.IP_TOS),
            ("ttl", SOL_IP, socket.IP_TTL),
            ("pktinfo", SOL_IP, PKTINFO),
            ("mtu-discover", SOL_IP, MTU_DISCOVER),
            ("nodelay", socket.IPPROTO_TCP, socket.TCP_NODELAY),
            ("nonsense", SOL_IP, 9999),
        ]
    ),
    BOTH_ENDS,
    "udp",
)
def udp_option(t: T, level: int, name: int) -> None:
    u, _ = t.udp()
    u.getsockopt(level, name)
    u.setsockopt(level, name, 1)
    u.getsockopt(level, name)
    u.setsockopt(level, name, 1, "short", 1 if level == socket.SOL_SOCKET else 0)
    u.setsockopt(level, name, 3000)
    u.getsockopt(level, name)


@case(BOTH_ENDS, "udp")
def udp_options_before_bind_stay(t: T) -> None:
    u = t.socket("u", socket.SOCK_DGRAM)
    u.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
    u.setsockopt(SOL_IP, socket.IP_TTL, 33)
    u.bind((t.here, t.port()))
    u.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    u.getsockopt(SOL_IP, socket.IP_TTL)


@case(BOTH_ENDS, "udp")
def udp_receive_buffer_has_an_end(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    u.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(60):
        p.quietly("sendto", b"%04d" % number + bytes(1000), 0, here)
    u.wait(IN)
    kept = 0
    while True:
        got = u.end.run("recv", u.fd, 2000, DONTWAIT)
        if isinstance(got, libc.Errno):
            break
        t.note("in order", got[:4] == b"%04d" % kept) if kept < 2 else None
        kept += 1
    t.note("some, not all", 2 <= kept < 40)


@case(("server", "loopback"), "udp")
def udp_pktinfo(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    u.setsockopt(SOL_IP, PKTINFO, 1)
    p.sendto(b"where to?", here)
    u.wait(IN)
    u.control()


@case(("server", "both", "loopback"), "udp")
def udp_pktinfo_on_any_address(t: T) -> None:
    u, address = t.udp(host=t.any)
    p, _ = t.udp("p", t.peer)
    u.setsockopt(SOL_IP, PKTINFO, 1)
    p.sendto(b"where to?", (t.here, int(address[1])))
    u.wait(IN)
    u.control()


@case(BOTH_ENDS, "udp")
def udp_control_that_does_not_fit(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    u.setsockopt(SOL_IP, PKTINFO, 1)
    p.sendto(b"x", here)
    u.wait(IN)
    u.control(8)
    p.sendto(b"y", here)
    u.wait(IN)
    u.control(24)


@case(BOTH_ENDS, "udp")
def udp_errqueue_is_empty(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    u.recvmsg([10], socket.MSG_ERRQUEUE)
    p.sendto(b"x", here)
    u.wait(IN)
    u.recvmsg([10], socket.MSG_ERRQUEUE)
    u.recv()


@case(BOTH_ENDS, "udp")
def udp_recvmmsg_time_limit(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    for raw in (b"a", b"bb", b"ccc"):
        p.sendto(raw, here)
    u.wait(IN)
    t.timed("at once", lambda: u.recvmmsg([10], 0, 0.5), 0.0, 0.4)
    t.note("the limit is over after one", u.quietly("recvmmsg", [10, 10, 10], 0, 0.0))
    t.note("then what is left", u.quietly("recvmmsg", [10, 10], WAITFORONE, 0.3))
    u.recvmmsg([10], DONTWAIT, 0.1)
    u.recvmmsg([10], DONTWAIT, -1.0)


@case(BOTH_ENDS, "udp")
def udp_waitforone(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    p.sendto(b"one", here)
    u.wait(IN)
    u.recvmmsg([10, 10, 10], WAITFORONE)


@case(BOTH_ENDS, "udp")
def udp_time_limit(t: T) -> None:
    u, _ = t.udp()
    u.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 0, 120000))
    t.timed("recv", lambda: u.recv(), 0.12)


@case(BOTH_ENDS, "udp")
def udp_zero_length_buffer(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    p.sendto(b"gone", here)
    p.sendto(b"next", here)
    u.wait(IN)
    u.recv(0)
    u.recvfrom()


@case(BOTH_ENDS, "udp")
def udp_poll_and_select(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    t.select([u], [u], [u])
    p.sendto(b"x", here)
    u.wait(IN)
    t.select([u], [u], [u])
    t.poll([(u, IN | OUT)])
    u.recv()
    t.poll([(u, IN)])


@case(BOTH_ENDS, "udp")
def udp_edges(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    ep = t.epoll("edge")
    ep.add(u, IN | OUT | ET)
    ep.now()
    ep.now()
    p.sendto(b"1", here)
    ep.wait()
    u.recv()
    u.recv(10, DONTWAIT)
    ep.now()
    p.sendto(b"2", here)
    ep.wait()


@case(BOTH_ENDS, "udp")
def udp_connect_again(t: T) -> None:
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    q, there2 = t.udp("q", t.peer)
    u.connect(there)
    u.send(b"to p")
    p.recvfrom()
    u.connect(there2)
    u.getpeername()
    u.send(b"to q")
    q.recvfrom()
    p.sendto(b"no longer", here)
    q.sendto(b"now", here)
    u.recvfrom()
    u.recv(10, DONTWAIT)


@case(BOTH_ENDS, "udp")
def udp_connected_sends_elsewhere(t: T) -> None:
    u, _ = t.udp()
    _, there = t.udp("p", t.peer)
    q, there2 = t.udp("q", t.peer)
    u.connect(there)
    u.sendto(b"aside", there2)
    q.recvfrom()
    u.getpeername()


@case(BOTH_ENDS, "udp")
def udp_connects_without_bind(t: T) -> None:
    u = t.socket("u", socket.SOCK_DGRAM)
    p, there = t.udp("p", t.peer)
    u.connect(there)
    u.getsockname()
    u.send(b"hello")
    got = p.recvfrom()
    p.sendto(b"welcome", got[1])
    u.recvfrom()
    u.poll()


@case(BOTH_ENDS, "udp")
def udp_hears_all_after_a_disconnect(t: T) -> None:
    u, here = t.udp()
    _, there = t.udp("p", t.peer)
    q, _ = t.udp("q", t.peer)
    u.connect(there)
    u.connect(None)
    q.sendto(b"anybody", here)
    u.recvfrom()


@case(BOTH_ENDS, "udp")
def udp_addresses_that_are_none(t: T) -> None:
    u, _ = t.udp()
    _, there = t.udp("p", t.peer)
    u.sendto(b"x", (t.there, 0))
    u.sendto(b"x", None)
    u.connect(there, 4)
    u.connect(there, 8)
    u.end.run("setsockopt", u.fd, socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)
    u.connect(("fd00::1", 9))
    u.sendto(b"x", ("fd00::1", 9))


@case(WIRE, "udp")
def udp_error_comes_before_data(t: T) -> None:
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    u.connect(there)
    p.sendto(b"before", here)
    u.wait(IN)
    p.close()
    u.send(b"nobody")
    u.wait(ERR)
    u.recv()
    u.recv()
    u.recv(10, DONTWAIT)


@case(WIRE, "udp")
def udp_error_when_sending(t: T) -> None:
    u, _ = t.udp()
    u.connect((t.there, t.port()))
    u.send(b"nobody")
    u.wait(ERR)
    u.send(b"told")
    u.send(b"tried again")


@case(WIRE, "udp")
def udp_error_wakes_a_reader(t: T) -> None:
    u, _ = t.udp()
    u.connect((t.there, t.port()))
    task = t.spawn(lambda: u.recv())
    task.blocked()
    u.send(b"nobody")
    task.join()


@case(WIRE, "udp")
def udp_error_is_an_event(t: T) -> None:
    u, _ = t.udp()
    ep = t.epoll()
    u.connect((t.there, t.port()))
    ep.add(u, IN | ET)
    ep.now()
    u.send(b"nobody")
    ep.wait()
    u.error()
    ep.now()


@case(WIRE, "udp")
def udp_unconnected_hears_no_error(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    u.sendto(b"nobody", (t.there, t.port()))
    p.sendto(b"somebody", here)
    u.recvfrom()
    u.error()
    u.poll()


@case(BOTH_ENDS, "udp")
def udp_several_on_one_port(t: T) -> None:
    port = t.port()
    many = []
    for number in range(3):
        u = t.socket(f"u{number}", socket.SOCK_DGRAM)
        u.quietly("setsockopt", socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        u.bind((t.here, port))
        many.append(u)
    senders = [t.udp(f"p{number}", t.peer)[0] for number in range(24)]
    for p in senders:
        p.quietly("sendto", b"x", 0, (t.here, port))
    counts = [0, 0, 0]

    def drained() -> int:
        for index, u in enumerate(many):
            while not isinstance(u.end.run("recv", u.fd, 10, DONTWAIT), libc.Errno):
                counts[index] += 1
        return sum(counts)

    until(drained, lambda total: total >= len(senders))
    t.note("each heard", [count > 0 for count in counts])
    t.note("none twice", sum(counts))


@case(BOTH_ENDS, "udp")
def udp_shared_by_a_child(t: T) -> None:
    u, here = t.udp()
    p, there = t.udp("p", t.peer)

    def child() -> None:
        u.recvfrom()
        u.sendto(b"from the child", there)

    process = t.fork(child)
    p.sendto(b"to either", here)
    process.join()
    p.recvfrom()
    p.sendto(b"to the parent", here)
    u.recvfrom()
    u.sendto(b"from the parent", there)
    p.recvfrom()


@case(BOTH_ENDS, "udp")
def udp_outlives_the_parents_descriptor(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    gate = t.gate()

    def child() -> None:
        gate.wait()
        u.recvfrom()

    process = t.fork(child)
    u.close()
    p.sendto(b"still here?", here)
    gate.open()
    process.join()


@case(BOTH_ENDS, "udp")
def udp_duplicate(t: T) -> None:
    u, here = t.udp()
    p, _ = t.udp("p", t.peer)
    d = u.dup("d")
    u.close()
    p.sendto(b"x", here)
    d.recvfrom()


@case(WIRE, "udp")
def udp_no_fragments_wanted(t: T) -> None:
    u, _ = t.udp()
    p, there = t.udp("p", t.peer)
    u.connect(there)
    u.getsockopt(SOL_IP, 14, "IP_MTU")
    u.setsockopt(SOL_IP, MTU_DISCOVER, 2, "IP_MTU_DISCOVER")
    u.send(pattern(1473))
    u.send(pattern(1472))
    p.recvfrom(2000)


@case(WIRE[:1], "udp")
def udp_ttl_and_tos_are_on_the_wire(t: T) -> None:
    u, _ = t.udp()
    p, there = t.udp("p", t.peer)
    u.setsockopt(SOL_IP, socket.IP_TOS, 0x2C, "IP_TOS")
    u.setsockopt(SOL_IP, socket.IP_TTL, 17, "IP_TTL")
    p.setsockopt(SOL_IP, 12, 1, "IP_RECVTTL")
    p.setsockopt(SOL_IP, 13, 1, "IP_RECVTOS")
    u.sendto(b"marked", there)
    p.wait(IN)
    p.control()


@case(WIRE[:1], "udp")
def udp_broadcast(t: T) -> None:
    u, here = t.udp()
    p = t.socket("p", socket.SOCK_DGRAM, end=t.peer)
    port = t.port()
    p.bind(("0.0.0.0", port))
    everybody = t.there.rsplit(".", 1)[0] + ".255"
    u.sendto(b"x", (everybody, port))
    u.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    u.sendto(b"hear ye", (everybody, port))
    p.recvfrom()
    v = t.socket("v", socket.SOCK_DGRAM)
    v.bind(("0.0.0.0", t.port()))
    p.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    p.sendto(b"and you", (everybody, int(v.quietly("getsockname")[1])))
    v.recvfrom()
    p.sendto(b"not by broadcast", here)
    u.recvfrom()


@case(BOTH_ENDS, "udp")
def udp_out_of_band(t: T) -> None:
    u, here = t.udp()
    p, there = t.udp("p", t.peer)
    u.sendto(b"x", there, socket.MSG_OOB)
    p.sendto(b"y", here)
    u.wait(IN)
    u.recv(10, socket.MSG_OOB)


@table(
    {"same": (False, False), "any first": (True, False), "any last": (False, True), "any twice": (True, True)},
    BOTH_ENDS,
    "udp",
)
def udp_which_of_two_on_one_port(t: T, first_any: bool, second_any: bool) -> None:
    port = t.port()
    both = []
    for label, on_any in (("u1", first_any), ("u2", second_any)):
        u = t.socket(label, socket.SOCK_DGRAM)
        u.quietly("setsockopt", socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        u.bind((t.any if on_any else t.here, port))
        both.append(u)
    p, _ = t.udp("p", t.peer)
    p.quietly("sendto", b"x", 0, (t.here, port))
    heard = until(
        lambda: [u.end.run("poll", u.fd, IN, 0) for u in both], lambda heard: any(each == IN for each in heard)
    )
    t.note("heard", [each == IN for each in heard])


@table({"here": (False,), "any": (True,)}, BOTH_ENDS, "udp")
def udp_connected_keeps_its_port(t: T, on_any: bool) -> None:
    port = t.port()
    u = t.socket("u", socket.SOCK_DGRAM)
    u.bind((t.any if on_any else t.here, port))
    _, there = t.udp("p", t.peer)
    u.connect(there)
    t.socket("second", socket.SOCK_DGRAM).bind((t.here, port))
    u.close()
    t.socket("third", socket.SOCK_DGRAM).bind((t.here, port))


@case(("server", "loopback"), "udp")
def udp_port_is_free_after_close(t: T) -> None:
    address = (t.here, t.port())
    for label in ("first", "second", "third"):
        u = t.socket(label, socket.SOCK_DGRAM)
        u.bind(address)
        u.close()
