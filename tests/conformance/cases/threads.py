# SPDX-License-Identifier: MulanPSL-2.0
"""Threads that close, write and read what others use; signals in blocking calls."""

from __future__ import annotations

import signal
import socket

from conformance.env import T
from conformance.names import IN, OUT
from conformance.ops import RDHUP
from conformance.registry import LISTEN, PAIR, case, table

NOSIG = socket.MSG_NOSIGNAL


@case()
def close_while_another_thread_reads(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: s.recv())
    task.blocked()
    s.close()
    p.poll(RDHUP, 30)
    p.send(b"it still reads")
    task.join()
    p.wait(RDHUP | IN)


@case()
def close_while_another_thread_polls(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: t.poll([(s, IN)], 150))
    task.blocked()
    s.close()
    task.join()
    p.wait(RDHUP)


@case()
def close_while_another_thread_waits_in_epoll(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    task = t.spawn(lambda: ep.wait(150))
    task.blocked()
    s.close()
    p.wait(RDHUP)
    task.join()


@case(LISTEN)
def close_listener_while_another_thread_accepts(t: T) -> None:
    listener, address = t.listener()
    task = t.spawn(lambda: listener.accept())
    task.blocked()
    listener.close()
    p = t.socket("p", end=t.peer)
    p.connect(address)
    task.join()


@case()
def two_threads_read(t: T) -> None:
    s, p = t.pair()
    tasks = [t.spawn(lambda: s.recv(1)) for _ in range(2)]
    for task in tasks:
        task.blocked()
    p.send(b"a")
    p.send(b"a")
    for task in tasks:
        task.join()
    s.recv(1, socket.MSG_DONTWAIT)


@case()
def two_threads_read_until_the_end(t: T) -> None:
    s, p = t.pair()
    tasks = [t.spawn(lambda: s.recv(1)) for _ in range(2)]
    for task in tasks:
        task.blocked()
    p.close()
    for task in tasks:
        task.join()


@case()
def one_reads_one_writes(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: s.recv_all(300_000))
    p.begin("recv_all", 300_000, 65536)
    s.send_all(300_000)
    p.finish("recv_all")
    p.begin("send_all", 300_000, 2, 65536)
    p.finish("send_all")
    task.join()


@case()
def two_threads_write(t: T) -> None:
    s, p = t.pair()
    tasks = [t.spawn(lambda: t.me.run("send_all", s.fd, 50_000, 1, 1000)) for _ in range(2)]
    got = p.quietly("recv_all", 100_000, 65536)
    t.note("bytes", got[0])
    for task in tasks:
        task.join()


@table({"recv": ("recv", (10, 0)), "read": ("read", (10,)), "recvmsg": ("recvmsg", ([3],)),
        "readv": ("readv", ([3],))})  # fmt: skip
def signal_interrupts(t: T, op: str, args: tuple[object, ...]) -> None:
    s, p = t.pair()
    with t.signals(signal.SIGUSR1) as came:
        task = t.interrupt()
        t.note(op, t.me.run(op, s.fd, *args))
        task.join()
        t.note("signals", len(came))
    p.send(b"x")
    t.note(op, t.me.run(op, s.fd, *args))


@case()
def signal_interrupts_send(t: T) -> None:
    s, _ = t.pair()
    s.fill()
    with t.signals(signal.SIGUSR1) as came:
        task = t.interrupt()
        s.send(b"x", NOSIG)
        task.join()
        t.note("signals", len(came))


@case()
def signal_in_a_send_under_way(t: T) -> None:
    s, _ = t.pair()
    with t.signals(signal.SIGUSR1):
        task = t.interrupt()
        got = t.me.run("send", s.fd, bytes(20_000_000), NOSIG)
        t.note("some went", isinstance(got, int) and 0 < got < 20_000_000)
        task.join()


@case(LISTEN)
def signal_interrupts_accept(t: T) -> None:
    listener, address = t.listener()
    with t.signals(signal.SIGUSR1) as came:
        task = t.interrupt()
        listener.accept()
        task.join()
        t.note("signals", len(came))
    t.dial(address)
    listener.accept()


@case()
def signal_restarts_recv(t: T) -> None:
    s, p = t.pair()
    with t.signals(signal.SIGUSR1, restart=True) as came:
        main = t.interrupt()

        def later() -> None:
            main.join("sender")
            p.quietly("send", b"after the signal")

        task = t.spawn(later)
        s.recv()
        task.join()
        t.note("signals", len(came))


@case()
def signal_during_timed_recv(t: T) -> None:
    s, _ = t.pair()
    s.quietly("setsockopt", socket.SOL_SOCKET, socket.SO_RCVTIMEO, (1).to_bytes(8, "little") + bytes(8))
    with t.signals(signal.SIGUSR1, restart=True) as came:
        task = t.interrupt()
        s.recv()
        task.join()
        t.note("signals", len(came))


@case(PAIR)
def dup2_while_another_thread_reads(t: T) -> None:
    import os

    s, p = t.pair()
    reads, writes = t.pipe()
    task = t.spawn(lambda: s.recv())
    task.blocked()
    os.dup2(reads, s.fd)
    p.send(b"old connection")
    task.join()
    os.write(writes, b"pipe")
    s.read()
    s.poll(IN | OUT)


@case()
def a_small_write_does_not_hide_room_from_a_blocked_one(t: T) -> None:
    s, p = t.pair()
    s.fill()
    task = t.spawn(lambda: s.send(b"x" * 100_000))
    task.blocked()
    sent = 0
    for _ in range(20):
        p.quietly("recv", 20_000)
        done = s.end.run("send", s.fd, b"small", socket.MSG_DONTWAIT)
        sent += done if isinstance(done, int) else 0
    p.drain()
    task.join()
