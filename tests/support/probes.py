# SPDX-License-Identifier: MulanPSL-2.0
"""A case for each row of the table: what a program sees that uses it on an accelerated socket, or on the kernel's."""

from __future__ import annotations

import socket
from functools import partial

from conformance.ends import Sock
from conformance.env import T
from conformance.libc import Errno
from conformance.names import IN, OUT
from conformance.registry import MODES, Case

from support.table import Row, read

MODE = MODES["server"]
_F_GETFD, _F_GETFL = 1, 3


def _said(value: object, varies: bool) -> str:
    return str(value) if isinstance(value, Errno) else "ok" if varies else repr(value)


def _stream6(t: T) -> Sock:
    """Return an IPv6 socket accepted from the peer: by a listener on all addresses, so that IPv4 reaches it."""
    address = ("::", t.port())
    listener = t.socket("l", family=socket.AF_INET6)
    listener.quietly("bind", address)
    listener.quietly("listen", 8)
    t.dial((t.here, address[1]))
    return t.accepted(listener, "s")


def _socket(t: T, row: Row) -> Sock:
    """Return a socket as rows are about: with data to read and room to write."""
    if row.kind == "udp":
        if row.group == "IPPROTO_IPV6":
            t.over_ipv6()
        u, here = t.udp()
        p, there = t.udp("p", t.peer)
        u.quietly("connect", there)
        for _ in range(2):
            p.quietly("sendto", b"12345678", 0, here)
    elif row.group == "IPPROTO_IPV6":
        return _stream6(t)
    else:
        u, p = t.pair()
        p.quietly("send", b"12345678", 0)
    u.quietly("wait", IN, IN)
    return u


def _option(t: T, row: Row) -> None:
    u = _socket(t, row)
    done = u.end.run("setsockopt", u.fd, row.level, row.number, row.raw or row.value)
    t.trace.add(f"set = {_said(done, False)}")
    t.trace.add(f"get = {_said(u.end.run('getsockopt', u.fd, row.level, row.number, row.room), row.varies)}")


def _send(t: T, row: Row) -> None:
    u = _socket(t, row)
    t.trace.add(f"send = {_said(u.end.run('send', u.fd, b'abc', row.number), False)}")


def _recv(t: T, row: Row) -> None:
    u = _socket(t, row)
    t.trace.add(f"recv = {_said(u.end.run('recv', u.fd, 4, row.number), False)}")


def _made(t: T, row: Row) -> None:
    kind = socket.SOCK_DGRAM if row.kind == "udp" else socket.SOCK_STREAM
    made = t.socket("s", kind | row.number)
    flags = [made.end.run("fcntl", made.fd, _F_GETFD), made.end.run("fcntl", made.fd, _F_GETFL)]
    t.trace.add(f"socket: {flags}")
    if row.kind == "tcp":
        listener, address = t.listener()
        t.dial(address)
        listener.quietly("wait", IN, IN)
        fd = listener.quietly("accept", row.number)[0]
        t.trace.add(f"accept4: {[made.end.run('fcntl', fd, command) for command in (_F_GETFD, _F_GETFL)]}")


def _epoll(t: T, row: Row) -> None:
    u = _socket(t, row)
    ep = t.epoll()
    ep.add(u, row.number | (IN if row.number >= 1 << 28 else 0))
    u.quietly("wait", OUT, OUT)
    ep.now()


def _fcntl(t: T, row: Row) -> None:
    u = _socket(t, row)
    t.trace.add(f"fcntl = {_said(u.end.run('fcntl', u.fd, row.number, row.value), row.varies)}")


def _ioctl(t: T, row: Row) -> None:
    u = _socket(t, row)
    t.trace.add(f"ioctl = {_said(u.end.run('ioctl', u.fd, row.number, row.value), row.varies)}")


_PROBES = {"send": _send, "recv": _recv, "SOCK": _made, "EPOLL": _epoll, "fcntl": _fcntl, "ioctl": _ioctl}


def _run(row: Row, t: T) -> None:
    _PROBES.get(row.group, _option)(t, row)


def cases() -> dict[str, Case]:
    """Return a case for each row."""
    return {row.case: Case(row.case, partial(_run, row), (MODE.name,), frozenset()) for row in read().rows}


def disagrees(row: Row, kernel: list[str], stack: list[str]) -> str:
    """Tell what is wrong with the row, if anything is."""
    if row.says in ("yes", "kept"):
        true = kernel == stack
    else:
        said = {"EOPNOTSUPP": "ENOTSUP"}.get(row.says, row.says)  # one number, and Python has the other name for it
        true = bool(stack) and stack[0].endswith(f"= {said}")
    if true:
        return ""
    return f"{row.group} {row.name} {row.kind}: the table says {row.says}; kernel: {kernel}; stack: {stack}"
