# SPDX-License-Identifier: MulanPSL-2.0
"""Amounts: large transfers in small pieces, both ways at once, many connections."""

from __future__ import annotations

import socket

from conformance.env import T
from conformance.names import IN
from conformance.ops import RDHUP
from conformance.registry import DIAL, LISTEN, PAIR, case, table

SOL = socket.SOL_SOCKET
SHAPES = {
    "bulk": (2_000_000, 65536, 65536, 0),
    "small-sends": (60_000, 100, 65536, 0),
    "small-reads": (60_000, 65536, 77, 0),
    "odd-pieces": (300_000, 1461, 1009, 0),
    "small-buffers": (60_000, 65536, 4096, 8192),
    "one-byte": (1_500, 1, 1, 0),
}


@table(SHAPES)
def receive_shape(t: T, count: int, out: int, into: int, room: int) -> None:
    s, p = t.pair()
    if room:
        s.quietly("setsockopt", SOL, socket.SO_RCVBUF, room)
    p.begin("send_all", count, 5, out)
    s.recv_all(count, into)
    p.finish("send_all")


@table(SHAPES)
def send_shape(t: T, count: int, out: int, into: int, room: int) -> None:
    s, p = t.pair()
    if room:
        s.quietly("setsockopt", SOL, socket.SO_SNDBUF, room)
    p.begin("recv_all", count, into)
    s.send_all(count, piece=out)
    p.finish("recv_all")


@table({"64k": (65536,), "1m": (1_000_000,)})
def nonblocking_both_ways(t: T, count: int) -> None:
    s, p = t.pair(nonblock=True)
    p.begin("send_all", count, 6, 9000)
    task = t.spawn(lambda: s.recv_all(count, 5000))
    task.join()
    p.finish("send_all")
    p.begin("recv_all", count, 5000)
    s.send_all(count, piece=9000)
    p.finish("recv_all")


@case()
def blocking_send_of_much(t: T) -> None:
    s, p = t.pair()
    p.begin("recv_all", 3_000_000, 65536)
    s.send(b"0123456789" * 300_000)
    p.finish("recv_all")


@case()
def blocked_send_returns_what_went_when_the_peer_resets(t: T) -> None:
    s, p = t.pair()
    got: list[object] = []
    task = t.spawn(lambda: got.append(t.me.run("send", s.fd, bytes(20_000_000), socket.MSG_NOSIGNAL)))
    task.blocked()
    p.reset()
    task.join()
    t.note("some went", isinstance(got[0], int) and 0 < got[0] < 20_000_000)


@case()
def echo_by_turns(t: T) -> None:
    s, p = t.pair()
    for number in range(30):
        s.send(b"%d" % number)
        p.recv()
        p.send(b"-%d" % number)
        s.recv()


@case()
def echo_growing(t: T) -> None:
    s, p = t.pair()
    for power in range(0, 18, 2):
        p.begin("recv_all", 1 << power, 65536)
        s.send_all(1 << power)
        p.finish("recv_all")
        p.begin("send_all", 1 << power, power, 65536)
        s.recv_all(1 << power)
        p.finish("send_all")


@case(LISTEN)
def many_connections_accepted(t: T) -> None:
    listener, address = t.listener(backlog=256)
    pairs = []
    for number in range(100):
        p = t.dial(address, label=f"p{number}")
        pairs.append((t.accepted(listener, f"s{number}"), p))
    for number, (s, p) in enumerate(pairs):
        s.quietly("send", b"%d" % number)
        if p.quietly("recv", 10) != b"%d" % number:
            t.note("crossed", number)
    for s, _ in pairs[::2]:
        s.quietly("close")
    for number, (s, p) in enumerate(pairs):
        if number % 2:
            p.quietly("send", b"still")
            if s.quietly("recv", 10) != b"still":
                t.note("lost", number)
        elif p.quietly("recv", 10) != b"":
            t.note("no end", number)


@case(DIAL)
def many_connections_made(t: T) -> None:
    listener, address = t.listener(backlog=256, end=t.peer)
    pairs = []
    for number in range(100):
        s = t.dial(address, t.me, f"s{number}")
        pairs.append((s, t.accepted(listener, f"p{number}")))
    for number, (s, p) in enumerate(pairs):
        p.quietly("send", b"%d" % number)
        if s.quietly("recv", 10) != b"%d" % number:
            t.note("crossed", number)


@case(LISTEN)
def connections_come_and_go(t: T) -> None:
    listener, address = t.listener()
    for number in range(60):
        p = t.dial(address)
        s = t.accepted(listener, "s")
        s.quietly("send", b"%d" % number)
        if p.quietly("recv", 10) != b"%d" % number:
            t.note("wrong", number)
        (p if number % 2 else s).quietly("close")
        (s if number % 2 else p).quietly("wait", RDHUP, RDHUP)
        (s if number % 2 else p).quietly("close")


@case(PAIR)
def unread_data_waits(t: T) -> None:
    s, p = t.pair()
    p.send(b"x" * 10000)
    s.queued(10000)
    p.send(b"y" * 10000)
    s.queued(20000)
    p.close()
    s.wait(RDHUP)
    s.recv_all(30000)
    s.poll(IN)
