# SPDX-License-Identifier: MulanPSL-2.0
"""connect() in every state of a socket, and what the addresses say afterwards."""

from __future__ import annotations

import socket

from conformance.env import T
from conformance.names import ERR, HUP, IN, OUT
from conformance.registry import DIAL, SOLO, case, table

NOSIG = socket.MSG_NOSIGNAL
DGRAM, STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM


@case(DIAL)
def connect_blocking(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    s.connect(address)
    s.getsockname()
    s.getpeername()
    listener.accept("p").getpeername()
    s.poll()


@case(DIAL)
def connect_nonblocking(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    s.nonblock()
    s.connect(address)
    s.wait(OUT)
    s.error()
    s.getpeername()
    p = t.accepted(listener, "p")
    s.send(b"hello")
    p.recv()


@case(DIAL)
def connect_by_socket_flag_nonblock(t: T) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket(kind=STREAM | socket.SOCK_NONBLOCK)
    s.connect(address)
    s.wait(OUT)
    s.connect(address)
    s.connect(address)


@case(DIAL)
def connect_again_when_connected(t: T) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.connect(address)
    s.connect(address)
    s.connect((t.there, 1))
    s.send(b"fine")


@case(DIAL)
def connect_again_after_nonblocking_success(t: T) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.nonblock()
    s.connect(address)
    s.wait(OUT)
    s.connect(address)
    s.connect(address)


@case(DIAL)
def connect_refused(t: T) -> None:
    s = t.socket()
    s.connect((t.there, t.port()))
    s.error()
    s.poll()
    s.getpeername()


@case(DIAL)
def connect_refused_nonblocking(t: T) -> None:
    s = t.socket()
    s.nonblock()
    s.connect((t.there, t.port()))
    s.wait(ERR)
    s.error()
    s.error()
    s.poll()


@case(DIAL)
def connect_refused_nonblocking_told_by_connect(t: T) -> None:
    s = t.socket()
    s.nonblock()
    port = t.port()
    s.connect((t.there, port))
    s.wait(HUP)
    s.connect((t.there, port))
    s.error()
    s.poll()


@case(DIAL)
def connect_refused_nonblocking_told_by_recv(t: T) -> None:
    s = t.socket()
    s.nonblock()
    s.connect((t.there, t.port()))
    s.wait(HUP)
    s.recv()
    s.recv()
    s.send(b"x", NOSIG)


@case(DIAL)
def connect_refused_nonblocking_told_by_send(t: T) -> None:
    s = t.socket()
    s.nonblock()
    s.connect((t.there, t.port()))
    s.wait(HUP)
    s.send(b"x", NOSIG)
    s.send(b"x", NOSIG)
    s.recv()


@case(DIAL)
def connect_after_refusal(t: T) -> None:
    s = t.socket()
    s.connect((t.there, t.port()))
    listener, address = t.listener(end=t.peer)
    s.connect(address)
    p = t.accepted(listener, "p")
    p.send(b"second try")
    s.recv()


@case(DIAL)
def connect_from_bound_port(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    s.bind((t.here, t.port()))
    s.connect(address)
    s.getsockname()
    t.accepted(listener, "p").getpeername()


@case(DIAL)
def connect_from_bound_address(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    s.bind((t.here, 0))
    s.getsockname()
    s.connect(address)
    s.getsockname()
    t.accepted(listener, "p").getpeername()


@case(("loopback",))
def connect_from_another_address_of_loopback(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    s.bind(("127.0.0.2", 0))
    s.connect(address)
    s.getsockname()
    t.accepted(listener, "p").getpeername()


@case(("loopback",))
def connect_to_another_address_of_loopback(t: T) -> None:
    listener, address = t.listener(end=t.peer, host=t.any)
    assert isinstance(address, tuple)
    s = t.socket()
    s.connect(("127.0.0.3", address[1]))
    s.getsockname()
    p = t.accepted(listener, "p")
    p.getsockname()
    p.getpeername()


@case(DIAL)
def connect_from_any(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    port = t.port()
    s.bind(("0.0.0.0", port))
    s.getsockname()
    s.connect(address)
    s.getsockname()
    t.accepted(listener, "p").getpeername()


@case(DIAL)
def connect_from_foreign_address(t: T) -> None:
    s = t.socket()
    s.bind(("192.0.2.1", 0))
    s.getsockname()


@table({"short": (4,), "none": (0,), "family-only": (2,), "cut": (15,)}, DIAL)
def connect_length(t: T, length: int) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.connect(address, length)


@case(DIAL)
def connect_wrong_family(t: T) -> None:
    s = t.socket()
    s.connect(("::1", 1))
    s.connect("/nowhere")


@case(DIAL)
def connect_unspec_undoes(t: T) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.connect(address)
    s.connect(None)
    s.getpeername()
    s.send(b"x", NOSIG)
    s.connect(address)
    s.getpeername()


@case(SOLO)
def connect_unspec_unconnected(t: T) -> None:
    s = t.socket()
    s.connect(None)
    s.getsockname()


@case(SOLO)
def connect_port_zero(t: T) -> None:
    t.socket().connect((t.here, 0))


@case(SOLO)
def connect_listener(t: T) -> None:
    listener, _ = t.listener()
    listener.connect((t.here, 1))


@case(SOLO)
def connect_broadcast(t: T) -> None:
    t.socket().connect(("255.255.255.255", 80))


@case(DIAL)
def connect_to_own_listener(t: T) -> None:
    listener, address = t.listener()
    s = t.socket()
    s.connect(address)
    a = listener.accept()
    a.send(b"to myself")
    s.recv()
    s.close()
    a.wait(0x2000)
    a.recv()


@case(DIAL)
def connect_to_any_is_to_oneself(t: T) -> None:
    if t.mode.wire:
        t.note("of loopback only")
        return
    listener, address = t.listener(end=t.peer, host="0.0.0.0")
    s = t.socket()
    s.connect(("0.0.0.0", address[1] if isinstance(address, tuple) else 0))
    p = t.accepted(listener, "p")
    s.send(b"hi")
    p.recv()


@case(DIAL)
def connect_twenty(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    for number in range(20):
        s = t.dial(address, t.me, f"s{number}")
        p = t.accepted(listener, f"p{number}")
        s.send(b"%d" % number)
        p.recv()


@case(DIAL)
def connect_ports_are_distinct(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    names = set()
    for number in range(10):
        s = t.dial(address, t.me, f"s{number}")
        names.add(s.quietly("getsockname"))
        t.accepted(listener, "p")
    t.note("distinct", len(names))


@case(DIAL)
def connect_same_four_tuple_twice(t: T) -> None:
    _, address = t.listener(end=t.peer)
    port = t.port()
    for label in ("s1", "s2"):
        s = t.socket(label)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1, "REUSEADDR")
        s.bind((t.here, port))
        s.connect(address)


@case(DIAL)
def unconnected_calls(t: T) -> None:
    s = t.socket()
    s.getsockname()
    s.getpeername()
    s.poll()
    s.recv()
    s.send(b"x", NOSIG)
    s.read()
    s.sendto(b"x", (t.there, 1), NOSIG)
    s.accept()
    s.error()


@case(DIAL)
def bound_calls(t: T) -> None:
    s = t.socket()
    s.bind((t.here, t.port()))
    s.getsockname()
    s.getpeername()
    s.poll()
    s.recv()
    s.send(b"x", NOSIG)
    s.accept()


@table({"0": (0,), "1": (1,), "2": (2,), "8": (8,), "15": (15,), "16": (16,), "40": (40,)}, DIAL)
def name_room(t: T, room: int) -> None:
    listener, address = t.listener(end=t.peer)
    port = t.port()
    s = t.socket()
    s.bind((t.here, port))
    s.connect(address)
    got = s.quietly("getpeername", room)
    t.note("length", got[0] if isinstance(got, list) else "whole")
    listener.poll(IN, 1000)


@case(DIAL)
def send_while_connecting_blocks_or_waits(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    s = t.socket()
    s.nonblock()
    s.connect(address)
    s.wait(OUT)
    s.send(b"early")
    p = t.accepted(listener, "p")
    p.recv()


@table({"stream": (STREAM,), "dgram": (DGRAM,)}, SOLO)
def socket_type_and_domain(t: T, kind: int) -> None:
    s = t.socket(kind=kind)
    for name in ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ACCEPTCONN"):
        s.getsockopt(socket.SOL_SOCKET, getattr(socket, name), name)


@table(
    {
        "bad-family": (999, STREAM, 0),
        "bad-type": (socket.AF_INET, 77, 0),
        "bad-protocol": (socket.AF_INET, STREAM, socket.IPPROTO_UDP),
        "tcp-by-dgram": (socket.AF_INET, DGRAM, socket.IPPROTO_TCP),
        "protocol-tcp": (socket.AF_INET, STREAM, socket.IPPROTO_TCP),
        "bad-flags": (socket.AF_INET, STREAM | 0x100000, 0),
    },
    SOLO,
)
def socket_arguments(t: T, family: int, kind: int, protocol: int) -> None:
    value = t.me.run("socket", family, kind, protocol)
    t.note("socket", value if isinstance(value, str) else "ok")


@case()
def disconnected_and_then(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    s.connect(None)
    p.wait(HUP)
    p.recv()
    s.poll()
    ep.now()
    s.recv(10, socket.MSG_DONTWAIT)
    s.recv(10, socket.MSG_DONTWAIT)
    s.send(b"x", socket.MSG_NOSIGNAL)
    s.shutdown(socket.SHUT_WR)
    s.error()
    s.poll()
