# SPDX-License-Identifier: MulanPSL-2.0
"""Vectors and messages: readv, writev, sendmsg, recvmsg, sendmmsg, recvmmsg, sendfile, splice."""

from __future__ import annotations

import array
import ctypes
import os
import socket
import tempfile

from conformance import libc
from conformance.env import T
from conformance.libc import call, size
from conformance.names import HUP, IN
from conformance.ops import RDHUP, pattern
from conformance.registry import PAIR, SOLO, case, table

NOSIG, DONTWAIT = socket.MSG_NOSIGNAL, socket.MSG_DONTWAIT
PARTS: dict[str, tuple[list[bytes]]] = {
    "one": ([b"abc"],),
    "three": ([b"abc", b"d", b"ef"],),
    "empty-between": ([b"", b"ab", b"", b"c", b""],),
    "all-empty": ([b"", b""],),
    "none": ([],),
    "hundred": ([b"%02d" % n for n in range(100)],),
    "thousand": ([b"x"] * 1024,),
    "too-many": ([b"x"] * 1025,),
}


@table(PARTS)
def writev_parts(t: T, parts: list[bytes]) -> None:
    s, p = t.pair()
    count = s.writev(parts)
    if isinstance(count, int) and count > 0:
        p.queued(count)
        p.recv(5000)


@table(PARTS)
def sendmsg_parts(t: T, parts: list[bytes]) -> None:
    s, p = t.pair()
    count = s.sendmsg(parts)
    if isinstance(count, int) and count > 0:
        p.queued(count)
        p.recv(5000)


SIZES: dict[str, tuple[list[int]]] = {
    "one": ([100],),
    "exact": ([10],),
    "three": ([3, 4, 5],),
    "empty-between": ([0, 3, 0, 4, 0],),
    "short": ([2, 2],),
    "none": ([],),
    "thousand": ([1] * 1024,),
    "too-many": ([1] * 1025,),
}


@table(SIZES)
def readv_sizes(t: T, sizes: list[int]) -> None:
    s, p = t.pair()
    p.send(b"0123456789")
    s.queued(10)
    s.readv(sizes)
    s.recv(100, DONTWAIT)


@table(SIZES)
def recvmsg_sizes(t: T, sizes: list[int]) -> None:
    s, p = t.pair()
    p.send(b"0123456789")
    s.queued(10)
    s.recvmsg(sizes)
    s.recv(100, DONTWAIT)


@case()
def recvmsg_flags_and_name(t: T) -> None:
    s, p = t.pair()
    p.send(b"0123456789")
    s.queued(10)
    s.recvmsg([4], socket.MSG_PEEK)
    s.recvmsg([4], socket.MSG_WAITALL)
    s.recvmsg([4], socket.MSG_TRUNC)
    p.close()
    s.wait(RDHUP)
    s.recvmsg([4, 4])
    s.recvmsg([4])


@case()
def recvfrom_gives_no_name(t: T) -> None:
    s, p = t.pair()
    p.send(b"0123456789")
    s.wait(IN)
    s.recvfrom(4)


@case()
def sendto_ignores_the_name(t: T) -> None:
    s, p = t.pair()
    s.sendto(b"x", ("192.0.2.1", 9))
    p.recv()
    s.sendmsg([b"y"], 0, ("192.0.2.1", 9))
    p.recv()


@table({"one": (1,), "five": (5,), "none": (0,)})
def sendmmsg_count(t: T, count: int) -> None:
    s, p = t.pair()
    s.sendmmsg([b"message%d" % n for n in range(count)])
    if count:
        p.queued(8 * count)
        p.recv()


@case()
def recvmmsg_of_a_stream(t: T) -> None:
    s, p = t.pair()
    p.send(b"abcdefgh")
    s.queued(8)
    s.recvmmsg([3, 3], DONTWAIT)
    s.recvmmsg([3, 3], DONTWAIT)
    s.recvmmsg([3], DONTWAIT)


@case()
def recvmmsg_waitforone(t: T) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    s.recvmmsg([3, 3, 3], 0x10000)


@case()
def recvmmsg_timeout(t: T) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    s.recvmmsg([3], 0, 0.05)


def _file(t: T, content: bytes) -> int:
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed with the case
    t.later(file.close)
    file.write(content)
    file.seek(0)
    file.flush()
    return file.fileno()


@table({"nothing": (0, 0), "some": (0, 1000), "middle": (500, 600), "past-end": (1900, 1000), "beyond": (5000, 10)})
def sendfile_with_offset(t: T, offset: int, count: int) -> None:
    s, p = t.pair()
    fd, place = _file(t, pattern(2000)), ctypes.c_long(offset)
    sent = t.call("sendfile", s.fd, fd, ctypes.byref(place), size(count))
    t.note("offset", place.value)
    t.note("position", os.lseek(fd, 0, os.SEEK_CUR))
    if isinstance(sent, int) and sent:
        p.recv_all(sent)


@case()
def sendfile_from_position(t: T) -> None:
    s, p = t.pair()
    fd = _file(t, pattern(2000))
    os.lseek(fd, 100, os.SEEK_SET)
    t.call("sendfile", s.fd, fd, None, size(500))
    t.note("position", os.lseek(fd, 0, os.SEEK_CUR))
    p.recv_all(500)


@case()
def sendfile_large(t: T) -> None:
    s, p = t.pair()
    fd, sent = _file(t, pattern(700000)), 0
    p.begin("recv_all", 700000, 65536)
    while sent < 700000:
        got = call("sendfile", s.fd, fd, None, size(700000 - sent))
        if not isinstance(got, int) or got == 0:
            t.note("sendfile", got)
            break
        sent += got
    t.note("sent", sent)
    p.finish("recv_all")


@case()
def sendfile_to_a_closed_peer(t: T) -> None:
    s, p = t.pair()
    fd = _file(t, pattern(2000))
    p.close()
    s.wait(RDHUP)
    t.call("sendfile", s.fd, fd, None, size(1000))
    s.wait(HUP)
    t.call("sendfile", s.fd, fd, None, size(1000))


@case()
def large_send_to_a_closed_peer_ends(t: T) -> None:
    s, p = t.pair()
    p.close()
    s.wait(RDHUP)
    s.quietly("send", b"x" * 3_000_000)
    s.wait(HUP)


@case()
def sendfile_nonblocking_full(t: T) -> None:
    s, _ = t.pair(nonblock=True)
    fd = _file(t, pattern(5000))
    s.fill()
    t.call("sendfile", s.fd, fd, None, size(5000))
    t.note("position", os.lseek(fd, 0, os.SEEK_CUR))


@case()
def sendfile_errors(t: T) -> None:
    s, _ = t.pair()
    fd = _file(t, b"x")
    t.call("sendfile", fd, s.fd, None, size(1))
    t.call("sendfile", s.fd, s.fd, None, size(1))
    t.call("sendfile", s.fd, 7006, None, size(1))
    t.call("sendfile", s.fd, t.pipe()[0], None, size(1))
    s.shutdown(socket.SHUT_WR)
    t.call("sendfile", s.fd, fd, None, size(1))


@case()
def splice_through_a_pipe(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    os.write(writes, b"from pipe")
    t.call("splice", reads, None, s.fd, None, size(100), 0)
    p.recv()
    p.send(b"into pipe")
    s.queued(9)
    t.call("splice", s.fd, None, writes, None, size(100), 0)
    t.note("pipe", os.read(reads, 100))
    s.nonblock()
    t.call("splice", s.fd, None, writes, None, size(100), 2)


@case()
def splice_errors(t: T) -> None:
    s, _ = t.pair()
    t.call("splice", s.fd, None, s.fd, None, size(1), 0)
    place = ctypes.c_long(0)
    t.call("splice", s.fd, ctypes.byref(place), t.pipe()[1], None, size(1), 0)


@table({"read": ("read",), "write": ("write",), "recv": ("recv",), "send": ("send",)})
def bad_pointer(t: T, name: str) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    extra = () if name in ("read", "write") else (NOSIG,)
    t.call(name, s.fd, ctypes.c_void_p(8), size(3), *extra)
    s.recv()


@case()
def bad_message_headers(t: T) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    t.call("recvmsg", s.fd, None, 0)
    t.call("sendmsg", s.fd, None, NOSIG)
    header = libc.Msghdr(iovlen=2000)
    t.call("recvmsg", s.fd, ctypes.byref(header), 0)
    t.call("sendmsg", s.fd, ctypes.byref(header), NOSIG)
    t.call("readv", s.fd, None, -1)
    t.call("writev", s.fd, None, -1)
    s.recv()


@case()
def control_data_on_a_stream(t: T) -> None:
    s, p = t.pair()
    with socket.socket(fileno=os.dup(s.fd)) as python:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]).tobytes())]
        try:
            t.note("sendmsg", python.sendmsg([b"x"], rights, NOSIG))
        except OSError as error:
            t.note("sendmsg", libc.Errno(str(error.errno)))
    p.wait(IN)
    p.recv(10)


@case(SOLO)
def vectors_on_bad_descriptors(t: T) -> None:
    for fd in (-1, 7007):
        t.note("readv", t.me.run("readv", fd, [1]))
        t.note("writev", t.me.run("writev", fd, [b"x"]))
        t.note("recvmsg", t.me.run("recvmsg", fd, [1]))
        t.note("sendmsg", t.me.run("sendmsg", fd, [b"x"]))
        t.note("sendmmsg", t.me.run("sendmmsg", fd, [b"x"]))


@case(PAIR)
def vector_fills_across_sends(t: T) -> None:
    s, p = t.pair()
    for number in range(5):
        p.send(b"%d" % number * 3)
        s.queued(3 * (number + 1))
    s.readv([4, 4, 4, 4])
