# SPDX-License-Identifier: MulanPSL-2.0
"""Descriptors passed over UNIX sockets (SCM_RIGHTS) between a program's own processes."""

from __future__ import annotations

import array
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from conformance.ends import Sock
from conformance.env import T
from conformance.names import IN
from conformance.ops import RDHUP
from conformance.registry import LISTEN, PAIR, case, table

_FD = array.array("i").itemsize


def _ends(t: T, kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair(socket.AF_UNIX, kind)
    for end in ends:
        t.later(end.close)
    return ends


def _taken(t: T, end: socket.socket, label: str = "passed", most: int = 1) -> list[Sock]:
    """Receive descriptors; the trace tells how many there were, and the flags."""
    _, fds, flags, _ = socket.recv_fds(end, 10, most)
    t.note("received", (len(fds), flags & ~socket.MSG_CMSG_CLOEXEC))
    return [Sock(t.me, t.trace, fd, label) for fd in fds]


@table({"kept": (False,), "closed": (True,)})
def descriptor_passed_to_a_child(t: T, closed: bool) -> None:
    s, p = t.pair()
    ours, theirs = _ends(t)

    def child() -> None:
        s.close()
        gate.open()
        (got,) = _taken(t, theirs)
        got.getpeername()
        got.send(b"by the child")
        got.recv()

    gate = t.gate()
    running = t.fork(child)
    gate.wait()
    socket.send_fds(ours, [b"x"], [s.fd])
    if closed:
        s.close()
    p.recv()
    p.send(b"answer")
    running.join()


@case()
def descriptor_passed_to_oneself(t: T) -> None:
    s, p = t.pair()
    ours, theirs = _ends(t, socket.SOCK_DGRAM)
    socket.send_fds(ours, [b"x"], [s.fd])
    (got,) = _taken(t, theirs)
    s.close()
    got.send(b"the same one")
    p.recv()
    got.close()
    p.wait(RDHUP)


@table({"closed": (True,), "kept": (False,)})
def descriptor_passed_to_an_elder_child(t: T, closed: bool) -> None:
    """The child is older than the connection, as those of a pre-forking server are."""
    ours, theirs = _ends(t)

    def child() -> None:
        (got,) = _taken(t, theirs)
        got.getpeername()
        got.getsockname()
        got.recv()
        got.send(b"by the child")
        got.close()

    running = t.fork(child)
    s, p = t.pair()
    p.send(b"for the child")
    s.queued(13)
    socket.send_fds(ours, [b"x"], [s.fd])
    if closed:
        s.close()
    running.join()
    p.recv()
    p.poll(RDHUP, 30 if not closed else 1000)


@case(LISTEN)
def descriptor_of_a_listener_passed(t: T) -> None:
    ours, theirs = _ends(t)

    def child() -> None:
        (got,) = _taken(t, theirs)
        got.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        got.wait(IN)
        a = t.accepted(got, "a")
        a.send(b"by the child")
        a.close()

    running = t.fork(child)
    listener, address = t.listener()
    socket.send_fds(ours, [b"x"], [listener.fd])
    listener.close()
    p = t.dial(address)
    p.recv()
    running.join()
    p.wait(RDHUP)


@case(LISTEN)
def descriptor_of_a_listener_served_by_both(t: T) -> None:
    ours, theirs = _ends(t)
    gate = t.gate()

    def child() -> None:
        (got,) = _taken(t, theirs)
        a = t.accepted(got, "a")
        a.send(b"by the child")
        gate.open()
        got.close()
        a.close()

    running = t.fork(child)
    listener, address = t.listener()
    socket.send_fds(ours, [b"x"], [listener.fd])
    p = t.dial(address, label="p")
    gate.wait()
    q = t.dial(address, label="q")
    b = t.accepted(listener, "b")
    b.send(b"by the parent")
    p.recv()
    q.recv()
    running.join()


@case()
def descriptor_passed_among_others(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    ours, theirs = _ends(t)

    def child() -> None:
        first, second, third = _taken(t, theirs, most=3)
        os.write(first.fd, b"into the pipe")
        second.send(b"into the connection")
        t.note("pipe", os.read(third.fd, 100))

    running = t.fork(child)
    socket.send_fds(ours, [b"x"], [writes, s.fd, reads])
    running.join()
    p.recv()


@table({"none": (0,), "one": (1,)})
def descriptors_beyond_the_room(t: T, room: int) -> None:
    s, p = t.pair()
    q, r = t.pair("q", "r")
    ours, theirs = _ends(t)
    socket.send_fds(ours, [b"x"], [s.fd, q.fd])
    s.close()
    q.close()
    _, control, flags, _ = theirs.recvmsg(10, socket.CMSG_LEN(room * _FD) if room else 0)
    t.note("received", ([len(raw) for _, _, raw in control], flags & ~socket.MSG_CMSG_CLOEXEC))
    r.wait(RDHUP)
    if not room:
        p.wait(RDHUP)
        return
    got = s.sock(array.array("i", control[0][2])[0], "passed")
    got.send(b"the first")
    p.recv()
    got.close()
    p.wait(RDHUP)


@case()
def descriptor_looked_at_and_taken(t: T) -> None:
    s, p = t.pair()
    ours, theirs = _ends(t)
    socket.send_fds(ours, [b"x"], [s.fd])
    s.close()
    _, fds, _, _ = socket.recv_fds(theirs, 10, 1, socket.MSG_PEEK)
    peeked = s.sock(fds[0], "peeked")
    peeked.send(b"peeked ")
    peeked.close()
    p.poll(RDHUP, 30)
    (got,) = _taken(t, theirs)
    got.send(b"taken")
    p.queued(12)
    p.recv()
    got.close()
    p.wait(RDHUP)


@table({"closed": (True,), "read": (False,)})
def descriptor_nobody_takes(t: T, closed: bool) -> None:
    s, p = t.pair()
    ours, theirs = _ends(t)
    socket.send_fds(ours, [b"x"], [s.fd])
    s.close()
    p.poll(RDHUP, 30)
    if closed:
        theirs.close()
    else:
        t.note("read", theirs.recv(10))
    p.wait(RDHUP)


@case()
def descriptor_passed_on(t: T) -> None:
    ours, theirs = _ends(t)
    on, last = _ends(t)

    def first() -> None:
        (got,) = _taken(t, theirs, "first")
        got.send(b"first ")
        socket.send_fds(on, [b"x"], [got.fd])
        got.close()

    def second() -> None:
        (got,) = _taken(t, last, "second")
        got.send(b"second")

    one, two = t.fork(first), t.fork(second)
    s, p = t.pair()
    socket.send_fds(ours, [b"x"], [s.fd])
    s.close()
    one.join()
    two.join()
    p.queued(12)
    p.recv()
    p.wait(RDHUP)


@case()
def descriptor_passed_by_a_child(t: T) -> None:
    s, p = t.pair()
    ours, theirs = _ends(t)

    def child() -> None:
        socket.send_fds(theirs, [b"x"], [s.fd])
        s.close()

    running = t.fork(child)
    s.close()
    running.join()
    (got,) = _taken(t, ours)
    got.send(b"back again")
    p.recv()


@case()
def descriptor_passed_and_told(t: T) -> None:
    """Levels, options and readiness are those of the one open file."""
    s, p = t.pair()
    ours, theirs = _ends(t)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1, "TCP_NODELAY")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1, "SO_KEEPALIVE")
    s.nonblock()
    gate = t.gate()

    def child() -> None:
        (got,) = _taken(t, theirs)
        got.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, "TCP_NODELAY")
        got.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, "SO_KEEPALIVE")
        got.recv()
        ep = t.epoll()
        ep.add(got, IN)
        gate.open()
        ep.wait(2000)
        got.recv()
        got.nonblock(False)

    running = t.fork(child)
    socket.send_fds(ours, [b"x"], [s.fd])
    gate.wait()
    p.send(b"ready")
    running.join()
    t.note("blocking", not s.quietly("fcntl", 3, 0) & os.O_NONBLOCK)


@case(PAIR)
def descriptor_of_a_closed_connection_passed(t: T) -> None:
    s, p = t.pair()
    ours, theirs = _ends(t)
    p.send(b"the last")
    p.close()
    s.wait(RDHUP)
    socket.send_fds(ours, [b"x"], [s.fd])
    s.close()
    (got,) = _taken(t, theirs)
    got.recv()
    got.recv()
    got.close()


@case(PAIR)
def descriptor_with_credentials(t: T) -> None:
    s, p = t.pair()
    ours, theirs = _ends(t)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    socket.send_fds(ours, [b"x"], [s.fd])
    _, control, flags, _ = theirs.recvmsg(10, 200, socket.MSG_CMSG_CLOEXEC)
    t.note("received", ([(level, kind, len(raw)) for level, kind, raw in control], flags))
    got = s.sock(array.array("i", control[-1][2])[0], "passed")
    t.note("pid", struct.unpack("3i", control[0][2])[0] == os.getpid())
    got.fcntl(1, 0, "F_GETFD")
    got.send(b"x")
    p.recv()


@case(PAIR)
def descriptor_over_a_named_socket(t: T) -> None:
    """As multiprocessing hands connections to its children: they connect to the parent and ask."""
    s, p = t.pair()
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as named:
        named.bind(str(Path(directory) / "socket"))
        named.listen()

        def child() -> None:
            with socket.socket(socket.AF_UNIX) as end:
                end.connect(named.getsockname())
                (got,) = _taken(t, end)
                got.send(b"by the child")

        running = t.fork(child)
        end, _ = named.accept()
        with end:
            socket.send_fds(end, [b"x"], [s.fd])
            s.close()
            running.join()
    p.recv()
    p.wait(RDHUP)


@table({"sent": (True,), "unsent": (False,)}, LISTEN)
def datagram_socket_passed(t: T, sent: bool) -> None:
    ours, theirs = _ends(t)

    def child() -> None:
        (got,) = _taken(t, theirs)
        got.wait(IN)
        got.recvfrom()
        got.sendto(b"by the child", back)

    p, back = t.udp("p", t.peer)
    running = t.fork(child)
    u, address = t.udp()
    p.sendto(b"before", address)
    u.wait(IN)
    if not sent:
        u.recvfrom()
    socket.send_fds(ours, [b"x"], [u.fd])
    u.close()
    if not sent:
        p.sendto(b"after", address)
    running.join()
    p.wait(IN)
    p.recvfrom()


_RECEIVER = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as end:
    _, fds, _, _ = socket.recv_fds(end, 10, 1)
with socket.socket(fileno=fds[0]) as got:
    got.sendall(b"after exec")
"""


@case(PAIR)
def descriptor_passed_to_a_program_with_one(t: T) -> None:
    """The new program has inherited a socket of ours, so it is a relative."""
    s, p = t.pair()
    q, r = t.pair("q", "r")
    ours, theirs = _ends(t)
    for fd in (theirs.fileno(), q.fd):
        os.set_inheritable(fd, True)
    with subprocess.Popen([sys.executable, "-c", _RECEIVER, str(theirs.fileno())], close_fds=False) as child:
        socket.send_fds(ours, [b"x"], [s.fd])
        t.note("status", child.wait(8))
    p.recv()
    r.poll(RDHUP, 30)


@case(PAIR)
def descriptor_passed_to_a_stranger(t: T) -> None:
    """The new program has nothing of ours but a UNIX socket."""
    s, p = t.pair()
    ours, theirs = _ends(t)
    argv = [sys.executable, "-c", _RECEIVER, str(theirs.fileno())]
    with subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL) as child:
        socket.send_fds(ours, [b"x"], [s.fd])
        t.note("status", child.wait(8))
    p.poll(IN, 1000)
