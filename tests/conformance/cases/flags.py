# SPDX-License-Identifier: MulanPSL-2.0
"""MSG_ flags, blocking and not, time-outs of receive and send."""

from __future__ import annotations

import socket
import struct

from conformance.env import T
from conformance.names import IN, PRI
from conformance.ops import RDHUP
from conformance.registry import PAIR, case, table

PEEK, WAITALL, DONTWAIT = socket.MSG_PEEK, socket.MSG_WAITALL, socket.MSG_DONTWAIT
TRUNC, OOB, NOSIG, ERRQUEUE = socket.MSG_TRUNC, socket.MSG_OOB, socket.MSG_NOSIGNAL, socket.MSG_ERRQUEUE
SOL, RCVTIMEO, SNDTIMEO = socket.SOL_SOCKET, socket.SO_RCVTIMEO, socket.SO_SNDTIMEO


def _span(milliseconds: int) -> bytes:
    return struct.pack("=qq", milliseconds // 1000, milliseconds % 1000 * 1000)


@case()
def peek_leaves_data(t: T) -> None:
    s, p = t.pair()
    p.send(b"abcdef")
    s.queued(6)
    s.recv(3, PEEK)
    s.recv(100, PEEK)
    s.recv(2)
    s.recv(2, PEEK)
    s.recv()
    s.recv(10, PEEK | DONTWAIT)


@case()
def peek_at_end(t: T) -> None:
    s, p = t.pair()
    p.send(b"z")
    p.close()
    s.wait(RDHUP)
    s.recv(10, PEEK)
    s.recv(10)
    s.recv(10, PEEK)
    s.recv(10, PEEK)


@case()
def peek_blocks_until_data(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: s.recv(10, PEEK))
    task.blocked()
    p.send(b"now")
    task.join()
    s.recv()


@case()
def peek_waitall(t: T) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    task = t.spawn(lambda: s.recv(6, PEEK | WAITALL))
    task.blocked()
    p.send(b"def")
    task.join()
    s.queued(6)
    s.recv()


@case()
def waitall_waits(t: T) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    task = t.spawn(lambda: s.recv(8, WAITALL))
    task.blocked()
    p.send(b"defghij")
    task.join()
    s.recv()


@case()
def waitall_ends_with_stream(t: T) -> None:
    s, p = t.pair()
    p.send(b"abc")
    p.shutdown(socket.SHUT_WR)
    s.wait(RDHUP)
    s.recv(8, WAITALL)
    s.recv(8, WAITALL)


@case()
def waitall_ends_with_reset(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: [s.recv(8, WAITALL), s.recv(8, WAITALL)])
    task.blocked()
    p.reset()
    task.join()


@case()
def waitall_does_not_wait_nonblocking(t: T) -> None:
    s, p = t.pair(nonblock=True)
    p.send(b"abc")
    s.queued(3)
    s.recv(8, WAITALL)
    s.recv(8, WAITALL)


@case()
def waitall_dontwait(t: T) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    s.recv(8, WAITALL | DONTWAIT)


@case()
def waitall_large(t: T) -> None:
    s, p = t.pair()
    p.begin("send_all", 400000, 3, 5000)
    s.recv(400000, WAITALL)
    p.finish("send_all")


@case()
def waitall_with_timeout(t: T) -> None:
    s, p = t.pair()
    s.quietly("setsockopt", SOL, RCVTIMEO, _span(60))
    p.send(b"abc")
    s.queued(3)
    t.timed("recv", lambda: s.recv(8, WAITALL), 0.06)
    s.recv(8, WAITALL)


@case()
def dontwait_empty(t: T) -> None:
    s, _ = t.pair()
    s.recv(10, DONTWAIT)
    s.recvmsg([10], DONTWAIT)
    s.recvfrom(10, DONTWAIT)


@case()
def dontwait_full(t: T) -> None:
    s, _ = t.pair()
    s.fill()
    s.send(b"x", DONTWAIT | NOSIG)
    s.sendmsg([b"x"], DONTWAIT | NOSIG)


@case()
def nonblocking_empty(t: T) -> None:
    s, _ = t.pair(nonblock=True)
    s.recv()
    s.read()
    s.readv([4])
    s.recvmsg([4])
    s.recvfrom()
    s.recv(0)
    s.read(0)


@case()
def trunc_discards(t: T) -> None:
    s, p = t.pair()
    p.send(b"abcdef")
    s.queued(6)
    t.note("bytes", len(s.quietly("recv", 4, TRUNC)))
    s.recv()


@case()
def trunc_peek(t: T) -> None:
    s, p = t.pair()
    p.send(b"abcdef")
    s.queued(6)
    s.recv(4, TRUNC | PEEK)
    s.recv()


@case()
def errqueue_is_empty(t: T) -> None:
    s, _ = t.pair()
    s.recv(10, ERRQUEUE)
    s.recvmsg([10], ERRQUEUE)


@case()
def urgent_byte(t: T) -> None:
    s, p = t.pair()
    p.send(b"ab!", OOB)
    s.wait(PRI)
    s.poll()
    s.recv(1, OOB)
    s.recv(10)
    s.recv(1, OOB)


@case()
def urgent_inline(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(SOL, socket.SO_OOBINLINE, 1, "OOBINLINE")
    p.send(b"ab!", OOB)
    s.wait(PRI)
    s.recv(10)
    s.recv(1, OOB)
    s.recv(10)


@case()
def urgent_none(t: T) -> None:
    s, p = t.pair()
    p.send(b"plain")
    s.wait(IN)
    s.recv(1, OOB)
    s.ioctl(0x8905, label="SIOCATMARK")


@case()
def urgent_from_us(t: T) -> None:
    s, p = t.pair()
    s.send(b"xy!", OOB)
    p.wait(PRI)
    p.recv(1, OOB)
    p.recv(10)


@case()
def more_holds_back_and_lets_go(t: T) -> None:
    s, p = t.pair()
    s.send(b"head", socket.MSG_MORE)
    s.send(b"body")
    p.queued(8)
    p.recv()


@case()
def unknown_flags(t: T) -> None:
    s, p = t.pair()
    s.send(b"x", 0x00800000)
    p.wait(IN)
    p.recv()
    p.send(b"y")
    s.wait(IN)
    s.recv(1, 0x00800000)


@table({"recv": ("recv", (10, 0)), "read": ("read", (10,)), "readv": ("readv", ([3],)),
        "recvmsg": ("recvmsg", ([3],)), "recvfrom": ("recvfrom", (10, 0)), "peek": ("recv", (10, PEEK))})  # fmt: skip
def receive_timeout(t: T, op: str, args: tuple[object, ...]) -> None:
    s, p = t.pair()
    s.quietly("setsockopt", SOL, RCVTIMEO, _span(60))
    t.timed(op, lambda: t.note(op, t.me.run(op, s.fd, *args)), 0.06)
    p.send(b"x")
    t.note(op, t.me.run(op, s.fd, *args))


@case()
def receive_timeout_taken_back(t: T) -> None:
    s, p = t.pair()
    s.quietly("setsockopt", SOL, RCVTIMEO, _span(20))
    s.recv()
    s.quietly("setsockopt", SOL, RCVTIMEO, _span(0))
    task = t.spawn(lambda: s.recv())
    task.blocked()
    p.send(b"x")
    task.join()


@table({"send": ("send", (b"x", NOSIG)), "write": ("write", (b"x",)), "writev": ("writev", ([b"x", b"y"],))})
def send_timeout(t: T, op: str, args: tuple[object, ...]) -> None:
    s, _ = t.pair()
    s.fill()
    s.quietly("setsockopt", SOL, SNDTIMEO, _span(60))
    t.timed(op, lambda: t.note(op, t.me.run(op, s.fd, *args)), 0.06)


@table({"rcv": (RCVTIMEO,), "snd": (SNDTIMEO,)})
def timeout_option(t: T, name: int) -> None:
    s, _ = t.pair()
    s.getsockopt(SOL, name, "TIMEO", 16)
    s.setsockopt(SOL, name, _span(1500), "TIMEO 1500 ms")
    s.getsockopt(SOL, name, "TIMEO", 16)
    s.setsockopt(SOL, name, struct.pack("=qq", 0, 1000000), "TIMEO bad microseconds")
    s.setsockopt(SOL, name, struct.pack("=qq", -1, 0), "TIMEO negative")
    s.getsockopt(SOL, name, "TIMEO", 16)
    s.setsockopt(SOL, name, b"\1\0\0\0", "TIMEO short")


@case()
def partial_reads_keep_the_rest(t: T) -> None:
    s, p = t.pair()
    p.send(bytes(range(20)))
    s.queued(20)
    for _ in range(7):
        s.recv(3)
    s.recv(1, DONTWAIT)


@case(PAIR)
def zero_lengths(t: T) -> None:
    s, p = t.pair()
    s.send(b"")
    s.write(b"")
    s.writev([b"", b""])
    s.sendmsg([])
    s.recv(0, DONTWAIT)
    s.read(0)
    p.recv(10, DONTWAIT)
    p.send(b"data")
    s.wait(IN)
    s.recv(0)
    s.recvmsg([])
    s.recv()
