# SPDX-License-Identifier: MulanPSL-2.0
"""fcntl, ioctl, dup, close: a socket as a descriptor."""

from __future__ import annotations

import errno
import os
import socket
import stat
import termios

from conformance.env import T
from conformance.libc import Errno, call
from conformance.names import IN, NVAL, OUT
from conformance.ops import RDHUP
from conformance.registry import LISTEN, PAIR, SOLO, case, table

NOSIG, DONTWAIT = socket.MSG_NOSIGNAL, socket.MSG_DONTWAIT
DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
FIONREAD, FIONBIO, FIOASYNC, OUTQ = termios.FIONREAD, termios.FIONBIO, termios.FIOASYNC, termios.TIOCOUTQ


@case()
def fionread_counts(t: T) -> None:
    s, p = t.pair()
    s.ioctl(FIONREAD, label="FIONREAD")
    p.send(b"12345")
    s.queued(5)
    s.recv(2)
    s.ioctl(FIONREAD, label="FIONREAD")
    p.close()
    s.wait(RDHUP)
    s.ioctl(FIONREAD, label="FIONREAD")
    s.recv()
    s.ioctl(FIONREAD, label="FIONREAD")


@case()
def outq_drains(t: T) -> None:
    s, p = t.pair()
    s.ioctl(OUTQ, label="OUTQ")
    s.send(b"12345")
    p.recv()
    p.send(b"ack")
    s.wait(IN)
    s.ioctl(OUTQ, label="OUTQ")


@case(LISTEN)
def fionread_on_others(t: T) -> None:
    listener, _ = t.listener()
    listener.ioctl(FIONREAD, label="FIONREAD")
    t.socket().ioctl(FIONREAD, label="FIONREAD")


@case()
def fionbio(t: T) -> None:
    s, _ = t.pair()
    s.ioctl(FIONBIO, 1, "FIONBIO 1")
    s.fcntl(GETFL, label="F_GETFL")
    s.recv()
    s.ioctl(FIONBIO, 0, "FIONBIO 0")
    s.fcntl(GETFL, label="F_GETFL")


@case(LISTEN)
def fionbio_listener(t: T) -> None:
    listener, _ = t.listener()
    listener.ioctl(FIONBIO, 1, "FIONBIO 1")
    listener.accept()


@table({"unknown": (0x12345678,), "tcgets": (0x5401,), "winsize": (0x5413,)})
def ioctl_refused(t: T, request: int) -> None:
    s, _ = t.pair()
    s.ioctl(request)


@case()
def nonblock_by_fcntl(t: T) -> None:
    s, p = t.pair()
    s.fcntl(GETFL, label="F_GETFL")
    s.fcntl(SETFL, os.O_NONBLOCK, "O_NONBLOCK")
    s.fcntl(GETFL, label="F_GETFL")
    s.recv()
    s.fcntl(SETFL, 0, "no O_NONBLOCK")
    task = t.spawn(lambda: s.recv())
    task.blocked()
    p.send(b"x")
    task.join()


@case()
def nonblock_is_shared_by_dups(t: T) -> None:
    s, _ = t.pair()
    d = s.dup("d")
    d.fcntl(SETFL, os.O_NONBLOCK, "O_NONBLOCK")
    s.fcntl(GETFL, label="F_GETFL")
    s.recv()


@case()
def cloexec_is_not_shared_by_dups(t: T) -> None:
    s, _ = t.pair()
    d = s.dup("d")
    d.fcntl(SETFD, 1, "FD_CLOEXEC")
    d.fcntl(GETFD, label="F_GETFD")
    s.fcntl(GETFD, label="F_GETFD")


@table({"plain": (DUPFD, 0), "cloexec": (DUPFD_CLOEXEC, 1)})
def dupfd(t: T, command: int, flag: int) -> None:
    s, p = t.pair()
    fd = s.quietly("fcntl", command, 500)
    t.note("at least 500", fd >= 500)
    d = s.sock(fd, "d")
    d.fcntl(GETFD, label="F_GETFD")
    s.close()
    d.send(b"by the duplicate")
    p.recv()
    d.close()
    p.wait(RDHUP)


@case()
def dup_shares_the_stream(t: T) -> None:
    s, p = t.pair()
    d = s.dup("d")
    p.send(b"abcdef")
    s.queued(6)
    s.recv(3)
    d.recv(3)
    s.send(b"1")
    d.send(b"2")
    p.queued(2)
    p.recv()


@case()
def close_of_one_dup_keeps_the_connection(t: T) -> None:
    s, p = t.pair()
    d = s.dup("d")
    s.close()
    p.poll(RDHUP, 30)
    d.send(b"alive")
    p.recv()
    d.close()
    p.wait(RDHUP)
    p.recv()


@case()
def shutdown_of_one_dup_is_all(t: T) -> None:
    s, p = t.pair()
    d = s.dup("d")
    s.shutdown(socket.SHUT_WR)
    p.wait(RDHUP)
    d.send(b"x", NOSIG)


@case()
def dup2_over_a_file(t: T) -> None:
    s, p = t.pair()
    reads, _ = t.pipe()
    t.note("dup2", os.dup2(s.fd, reads) == reads)
    d = s.sock(reads, "d")
    s.close()
    d.send(b"x")
    p.recv()
    d.getpeername()


@case()
def dup2_over_a_socket_closes_it(t: T) -> None:
    s, p = t.pair()
    s2, p2 = t.pair("s2", "p2")
    os.dup2(s.fd, s2.fd)
    p2.wait(RDHUP)
    s2.send(b"now the other")
    p.recv()


@case()
def dup2_file_over_a_socket_closes_it(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    os.dup2(reads, s.fd)
    p.wait(RDHUP)
    os.write(writes, b"pipe")
    s.read()
    s.recv(10, DONTWAIT)
    s.getpeername()


@case()
def dup2_onto_itself(t: T) -> None:
    s, p = t.pair()
    t.note("same", t.me.run("fcntl", s.fd, GETFD))
    t.note("dup2", os.dup2(s.fd, s.fd) == s.fd)
    s.send(b"x")
    p.recv()


@table({"none": (0,), "cloexec": (os.O_CLOEXEC,), "wrong": (1,)})
def dup3(t: T, flags: int) -> None:
    s, p = t.pair()
    reads, _ = t.pipe()
    done = call("dup3", s.fd, reads, flags)
    t.note("dup3", done if isinstance(done, Errno) else done == reads)
    if not isinstance(done, Errno):
        d = s.sock(reads, "d")
        d.fcntl(GETFD, label="F_GETFD")
        d.send(b"x")
        p.recv()
    t.call("dup3", s.fd, s.fd, 0)
    t.call("dup3", 7002, s.fd, 0)


@table({"socket": (0,), "nonblock": (socket.SOCK_NONBLOCK,), "cloexec": (socket.SOCK_CLOEXEC,)}, SOLO)
def socket_flags(t: T, flags: int) -> None:
    s = t.socket(kind=socket.SOCK_STREAM | flags)
    s.fcntl(GETFL, label="F_GETFL")
    s.fcntl(GETFD, label="F_GETFD")


@case()
def closed_descriptor(t: T) -> None:
    s, p = t.pair()
    s.close()
    s.close()
    s.send(b"x", NOSIG)
    s.recv()
    s.getsockname()
    s.poll()
    s.fcntl(GETFL, label="F_GETFL")
    p.wait(RDHUP)


@case()
def lowest_number_is_taken(t: T) -> None:
    s, _ = t.pair()
    fd = s.fd
    s.close()
    t.note("reused", t.socket().fd == fd)


@case(LISTEN)
def lowest_number_is_taken_by_accept(t: T) -> None:
    listener, address = t.listener()
    reads, _ = t.pipe()
    t.dial(address)
    listener.wait(IN)
    os.close(reads)
    t.note("reused", listener.accept().fd == reads)


@case()
def number_reused_by_a_file(t: T) -> None:
    s, p = t.pair()
    s.close()
    fd = os.open("/dev/null", os.O_RDWR)
    t.note("reused", fd == s.fd)
    s.send(b"x", NOSIG)
    s.read()
    s.write(b"swallowed")
    os.close(fd)
    p.wait(RDHUP)
    p.recv()


@case()
def stat_is_a_socket(t: T) -> None:
    s, _ = t.pair()
    t.note("socket", stat.S_ISSOCK(os.fstat(s.fd).st_mode))
    t.note("link", os.readlink(f"/proc/self/fd/{s.fd}").split(":")[0])


@case()
def seek_is_refused(t: T) -> None:
    s, _ = t.pair()
    for what, attempt in (
        ("lseek", lambda: os.lseek(s.fd, 0, os.SEEK_CUR)),
        ("pread", lambda: os.pread(s.fd, 1, 0)),
        ("pwrite", lambda: os.pwrite(s.fd, b"x", 0)),
        ("ftruncate", lambda: os.ftruncate(s.fd, 0)),
        ("fsync", lambda: os.fsync(s.fd)),
    ):
        try:
            t.note(what, attempt())
        except OSError as error:
            t.note(what, errno.errorcode[error.errno or 0])


@case()
def close_range_over_sockets(t: T) -> None:
    s, p = t.pair()
    fds = [s.quietly("fcntl", DUPFD, 600) for _ in range(3)]
    t.note("adjacent", fds == [600, 601, 602])
    s.close()
    p.poll(RDHUP, 30)
    t.call("close_range", 600, 602, 0)
    p.wait(RDHUP)
    t.note("gone", t.me.run("fcntl", 601, GETFD))


@case()
def close_range_cloexec(t: T) -> None:
    s, p = t.pair()
    fd = s.quietly("fcntl", DUPFD, 600)
    t.call("close_range", fd, fd, 4)
    s.sock(fd, "d").fcntl(GETFD, label="F_GETFD")
    s.sock(fd, "d").send(b"open")
    p.recv()
    s.sock(fd, "d").close()


@case()
def file_object_over_a_socket(t: T) -> None:
    s, p = t.pair()
    with os.fdopen(os.dup(s.fd), "r+b", buffering=0) as stream:
        stream.write(b"line one\nline two\n")
        p.queued(18)
        p.recv()
        p.send(b"answer\n")
        t.note("line", stream.readline())
    s.send(b"still open")
    p.recv()


@case(PAIR)
def polled_after_close_is_nval(t: T) -> None:
    s, _ = t.pair()
    s.close()
    t.poll([(s, IN | OUT)])
    t.note("nval", NVAL)
