# SPDX-License-Identifier: MulanPSL-2.0
"""bind(), listen(), accept(): errors, flags, backlog, addresses."""

from __future__ import annotations

import os
import socket

from conformance.env import T
from conformance.names import HUP, IN, OUT
from conformance.ops import RDHUP
from conformance.registry import LISTEN, SOLO, case, table

NOSIG = socket.MSG_NOSIGNAL
SOL, REUSEADDR, REUSEPORT = socket.SOL_SOCKET, socket.SO_REUSEADDR, socket.SO_REUSEPORT


@case(LISTEN)
def accept_one(t: T) -> None:
    listener, address = t.listener()
    listener.poll()
    p = t.dial(address)
    listener.wait(IN)
    a = listener.accept()
    listener.poll()
    a.getsockname()
    a.getpeername()
    p.getpeername()
    a.poll()


@case(LISTEN)
def accept_blocked_until_connect(t: T) -> None:
    listener, address = t.listener()
    task = t.spawn(lambda: listener.accept().send(b"welcome"))
    task.blocked()
    p = t.dial(address)
    p.recv()
    task.join()


@case(LISTEN)
def accept_nonblocking_empty(t: T) -> None:
    listener, _ = t.listener()
    listener.nonblock()
    listener.accept()
    listener.poll()


@table(
    {
        "none": (0,),
        "nonblock": (socket.SOCK_NONBLOCK,),
        "cloexec": (socket.SOCK_CLOEXEC,),
        "both": (socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,),
        "wrong": (0x10,),
    },
    LISTEN,
)
def accept4_flags(t: T, flags: int) -> None:
    listener, address = t.listener()
    t.dial(address)
    listener.wait(IN)
    a = listener.accept(flags=flags)
    a.fcntl(1, label="F_GETFD")
    a.fcntl(3, label="F_GETFL")


@case(LISTEN)
def accepted_does_not_inherit_nonblock(t: T) -> None:
    listener, address = t.listener()
    listener.nonblock()
    t.dial(address)
    listener.wait(IN)
    listener.accept().fcntl(3, label="F_GETFL")


@case(LISTEN)
def accept_order(t: T) -> None:
    listener, address = t.listener()
    for number in range(5):
        p = t.dial(address, label=f"p{number}")
        p.send(b"%d" % number)
    for number in range(5):
        t.accepted(listener, f"a{number}").recv()


@case(LISTEN)
def accept_after_data_and_end(t: T) -> None:
    listener, address = t.listener()
    p = t.dial(address)
    p.send(b"all I have to say")
    p.close()
    a = t.accepted(listener, "a")
    a.wait(RDHUP)
    a.recv()
    a.recv()


@case(LISTEN)
def accept_after_reset(t: T) -> None:
    listener, address = t.listener()
    p = t.dial(address)
    p.send(b"x")
    listener.wait(IN)
    p.reset()
    t.dial(address, label="p2").send(b"second")
    a = t.accepted(listener, "a")
    a.wait(HUP)
    a.recv()
    t.accepted(listener, "a2").recv()


@case(LISTEN)
def connect_waits_in_backlog(t: T) -> None:
    listener, address = t.listener(backlog=8)
    for number in range(6):
        t.dial(address, label=f"p{number}").poll()
    for number in range(6):
        t.accepted(listener, f"a{number}").poll()
    listener.poll()


@case(LISTEN)
def backlog_full_holds_the_next(t: T) -> None:
    listener, address = t.listener(backlog=1)
    waiting = []
    for number in range(3):
        p = t.socket(f"p{number}", end=t.peer)
        p.nonblock()
        t.peer.run("connect", p.fd, address)
        if number < 2:
            p.wait(OUT)
        waiting.append(p)
    waiting[2].poll(OUT, 100)
    t.accepted(listener, "a0")
    t.accepted(listener, "a1")
    t.accepted(listener, "a2")
    waiting[2].wait(OUT)


@table({"zero": (0,), "negative": (-1,), "huge": (1 << 30,)}, LISTEN)
def backlog_value(t: T, backlog: int) -> None:
    listener, address = t.listener(backlog)
    t.dial(address)
    t.accepted(listener, "a").poll()


@case(LISTEN)
def listen_unbound(t: T) -> None:
    s = t.socket()
    s.listen()
    s.getsockname()
    s.poll()
    s.getsockopt(SOL, socket.SO_ACCEPTCONN, "SO_ACCEPTCONN")


@case(LISTEN)
def listen_twice(t: T) -> None:
    listener, address = t.listener(1)
    listener.listen(10)
    t.dial(address)
    t.accepted(listener, "a").poll()


@case(LISTEN)
def listen_connected(t: T) -> None:
    s, _ = t.pair()
    s.listen()
    s.accept()


@case(LISTEN)
def listener_calls(t: T) -> None:
    listener, _ = t.listener()
    listener.getsockname()
    listener.getpeername()
    listener.recv()
    listener.send(b"x", NOSIG)
    listener.read()
    listener.write(b"x")
    listener.error()
    listener.getsockopt(SOL, socket.SO_ACCEPTCONN, "SO_ACCEPTCONN")


@case(LISTEN)
def bind_twice(t: T) -> None:
    s = t.socket()
    s.bind((t.here, t.port()))
    s.bind((t.here, t.port()))
    s.getsockname()


@case(LISTEN)
def bind_connected(t: T) -> None:
    s, _ = t.pair()
    s.bind((t.here, t.port()))


@table({"short": (8,), "none": (0,), "family-only": (2,)}, LISTEN)
def bind_length(t: T, length: int) -> None:
    t.socket().bind((t.here, t.port()), length)


@case(LISTEN)
def bind_wrong_family(t: T) -> None:
    t.socket().bind(("::1", t.port()))
    t.socket().bind("/nowhere")
    t.socket().bind(None)


@case(LISTEN)
def bind_foreign_address(t: T) -> None:
    t.socket().bind(("192.0.2.7", t.port()))


@case(LISTEN)
def bind_port_zero_gets_one(t: T) -> None:
    s = t.socket()
    s.bind((t.here, 0))
    s.getsockname()
    s.listen()
    p = t.socket("p", end=t.peer)
    p.connect(s.quietly("getsockname"))
    t.accepted(s, "a").getsockname()


@table({"neither": (0, 0), "first": (1, 0), "second": (0, 1), "both": (1, 1)}, LISTEN)
def bind_in_use_by_listener(t: T, first: int, second: int) -> None:
    address = (t.here, t.port())
    for label, reuse in (("s1", first), ("s2", second)):
        s = t.socket(label)
        s.setsockopt(SOL, REUSEADDR, reuse, "REUSEADDR")
        s.bind(address)
        s.listen()


@table({"neither": (0, 0), "first": (1, 0), "both": (1, 1)}, LISTEN)
def reuseport(t: T, first: int, second: int) -> None:
    address = (t.here, t.port())
    for label, reuse in (("s1", first), ("s2", second)):
        s = t.socket(label)
        s.setsockopt(SOL, REUSEPORT, reuse, "REUSEPORT")
        s.bind(address)
        s.listen()


@case(LISTEN)
def bind_in_use_by_any(t: T) -> None:
    port = t.port()
    s = t.socket("any")
    s.bind(("0.0.0.0", port))
    s.listen()
    s2 = t.socket("one")
    s2.bind((t.here, port))
    s2.listen()


@case(LISTEN)
def bind_after_close(t: T) -> None:
    address = (t.here, t.port())
    for label in ("first", "second"):
        s = t.socket(label)
        s.bind(address)
        s.listen()
        s.close()


@case(LISTEN)
def listen_again_beside_old_connection(t: T) -> None:
    address = (t.here, t.port())
    s = t.socket("l1")
    s.setsockopt(SOL, REUSEADDR, 1, "REUSEADDR")
    s.bind(address)
    s.listen()
    p = t.dial(address)
    a = t.accepted(s, "a")
    s.close()
    again = t.socket("l2")
    again.setsockopt(SOL, REUSEADDR, 1, "REUSEADDR")
    again.bind(address)
    again.listen()
    a.send(b"old")
    p.recv()
    p2 = t.dial(address, label="p2")
    t.accepted(again, "a2").send(b"new")
    p2.recv()


@case(LISTEN)
def listen_again_needs_reuseaddr(t: T) -> None:
    address = (t.here, t.port())
    s = t.socket("l1")
    s.bind(address)
    s.listen()
    t.dial(address)
    a = t.accepted(s, "a")
    s.close()
    t.socket("l2").bind(address)
    a.close()
    t.socket("l3").bind(address)


@case(LISTEN)
def listen_on_any(t: T) -> None:
    listener, address = t.listener(host="0.0.0.0")
    listener.getsockname()
    p = t.dial((t.here, int(address[1])))
    a = t.accepted(listener, "a")
    a.getsockname()
    a.send(b"any")
    p.recv()


@case(LISTEN)
def close_listener_refuses_the_waiting(t: T) -> None:
    listener, address = t.listener()
    p = t.dial(address)
    listener.wait(IN)
    listener.close()
    p.wait(HUP)
    p.recv()
    t.socket("p2", end=t.peer).connect(address)


@case(LISTEN)
def accept_of_nothing(t: T) -> None:
    s = t.socket()
    s.accept()
    s.accept(flags=socket.SOCK_NONBLOCK)


@case(SOLO)
def accept_bad_descriptors(t: T) -> None:
    reads, _ = t.pipe()
    for fd in (-1, 7000, reads):
        t.note("accept", t.me.run("accept", fd))
        t.note("listen", t.me.run("listen", fd, 1))
        t.note("getsockname", t.me.run("getsockname", fd))
        t.note("shutdown", t.me.run("shutdown", fd, 1))
    t.note("root", os.geteuid() == 0)


@case(LISTEN)
def accept_timeout(t: T) -> None:
    listener, _ = t.listener()
    listener.quietly("setsockopt", SOL, socket.SO_RCVTIMEO, (0).to_bytes(8, "little") + (60000).to_bytes(8, "little"))
    t.timed("accept", lambda: listener.accept(), 0.06)


@case(LISTEN)
def two_threads_accept(t: T) -> None:
    listener, address = t.listener()
    # Which of them gets which connection is nobody's promise.
    tasks = [t.spawn(lambda: t.me.run("send", t.me.run("accept", listener.fd)[0], b"served", NOSIG)) for _ in range(2)]
    for task in tasks:
        task.blocked()
    for label in ("p1", "p2"):
        t.dial(address, label=label).recv()
    for task in tasks:
        task.join()


@case(LISTEN)
def accepted_inherits_options(t: T) -> None:
    listener, address = t.listener()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1, "NODELAY")
    listener.setsockopt(SOL, socket.SO_KEEPALIVE, 1, "KEEPALIVE")
    listener.setsockopt(SOL, socket.SO_LINGER, b"\1\0\0\0\5\0\0\0", "LINGER")
    t.dial(address)
    a = t.accepted(listener, "a")
    a.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, "NODELAY")
    a.getsockopt(SOL, socket.SO_KEEPALIVE, "KEEPALIVE")
    a.getsockopt(SOL, socket.SO_LINGER, "LINGER", 8)
    a.getsockopt(SOL, REUSEADDR, "REUSEADDR")
    a.poll(IN | OUT)
