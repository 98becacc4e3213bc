# SPDX-License-Identifier: MulanPSL-2.0
"""RST, EPIPE, SIGPIPE, SO_ERROR, SO_LINGER."""

from __future__ import annotations

import signal
import socket

from conformance.env import T
from conformance.names import BOTH, ERR, HUP, IN, OUT, READ, WRITE
from conformance.ops import RDHUP
from conformance.registry import case, table

NOSIG = socket.MSG_NOSIGNAL
SOL, LINGER = socket.SOL_SOCKET, socket.SO_LINGER
OFF, ZERO, ONE_S = bytes(8), b"\1\0\0\0\0\0\0\0", b"\1\0\0\0\1\0\0\0"


@table({"recv": ("recv", (10, 0)), "send": ("send", (b"x", NOSIG)), "read": ("read", (10,)),
        "readv": ("readv", ([3],)), "recvmsg": ("recvmsg", ([3],)), "peek": ("recv", (10, socket.MSG_PEEK)),
        "sendmsg": ("sendmsg", ([b"x"], NOSIG)), "dontwait": ("recv", (10, socket.MSG_DONTWAIT))})  # fmt: skip
def reset_is_told_once_by(t: T, op: str, args: tuple[object, ...]) -> None:
    s, p = t.pair()
    p.reset()
    s.wait(HUP)
    for _ in range(2):
        t.note(op, t.me.run(op, s.fd, *args))
    s.error()
    s.poll()


@case()
def reset_is_told_once_by_so_error(t: T) -> None:
    s, p = t.pair()
    p.reset()
    s.wait(ERR)
    s.error()
    s.error()
    s.recv()
    s.send(b"x", NOSIG)
    s.poll()
    s.getpeername()


@case()
def reset_discards_waiting_data(t: T) -> None:
    s, p = t.pair()
    p.send(b"lost")
    s.wait(IN)
    p.reset()
    s.wait(HUP)
    s.ioctl(0x541B, label="FIONREAD")
    s.recv()
    s.recv()


@case()
def reset_while_blocked_in_recv(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: [s.recv(), s.recv()])
    task.blocked()
    p.reset()
    task.join()


@case()
def reset_while_blocked_in_send(t: T) -> None:
    s, p = t.pair()
    s.fill()
    task = t.spawn(lambda: [s.send(b"x", NOSIG), s.send(b"x", NOSIG)])
    task.blocked()
    p.reset()
    task.join()


@case()
def reset_after_our_shutdown(t: T) -> None:
    s, p = t.pair()
    s.shutdown(WRITE)
    p.wait(RDHUP)
    p.reset()
    s.wait(HUP)
    s.recv()
    s.recv()


@case()
def reset_after_their_shutdown(t: T) -> None:
    s, p = t.pair()
    p.shutdown(WRITE)
    s.wait(RDHUP)
    p.reset()
    s.wait(HUP)
    s.recv()
    s.error()
    s.send(b"x", NOSIG)


@case()
def reset_then_shutdown(t: T) -> None:
    s, p = t.pair()
    p.reset()
    s.wait(HUP)
    s.shutdown(BOTH)
    s.shutdown(READ)
    s.error()


@case()
def reset_then_connect_again(t: T) -> None:
    s, p = t.pair()
    p.reset()
    s.wait(HUP)
    s.error()
    _, address = t.listener(end=t.peer)
    s.connect(address)
    s.getpeername()


@case()
def close_with_unread_data_resets_peer(t: T) -> None:
    s, p = t.pair()
    p.send(b"never read")
    s.wait(IN)
    s.close()
    p.wait(HUP)
    p.recv()
    p.recv()


@case()
def close_at_peer_with_unread_data_resets_us(t: T) -> None:
    s, p = t.pair()
    s.send(b"never read")
    p.wait(IN)
    p.close()
    s.wait(HUP)
    s.poll()
    s.recv()
    s.recv()


@case()
def linger_zero_resets_peer(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(SOL, LINGER, ZERO, "LINGER")
    s.close()
    p.wait(HUP)
    p.recv()
    p.recv()


@case()
def linger_zero_loses_unsent(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(SOL, LINGER, ZERO, "LINGER")
    s.fill()
    s.close()
    p.wait(HUP)
    p.error()


@case()
def linger_one_second_delivers(t: T) -> None:
    s, p = t.pair()
    s.setsockopt(SOL, LINGER, ONE_S, "LINGER")
    s.send(b"x" * 1000)
    s.close()
    p.wait(RDHUP)
    p.recv(2000)
    p.recv()


@case(("server", "client", "both"))
def linger_waits_for_a_slow_reader(t: T) -> None:
    s, _ = t.pair()
    s.setsockopt(SOL, LINGER, b"\1\0\0\0\1\0\0\0", "LINGER")
    s.fill()
    t.timed("close", lambda: s.close(), 0.9, 2.5)


@case(("client", "loopback"))
def linger_delays_even_a_nonblocking_close(t: T) -> None:
    s, _ = t.pair(nonblock=True)
    s.setsockopt(SOL, LINGER, ONE_S, "LINGER")
    s.fill()
    t.timed("close", lambda: s.close(), 0.9)


@table({"off": (OFF,), "zero": (ZERO,), "one": (ONE_S,)})
def linger_value(t: T, value: bytes) -> None:
    s, _ = t.pair()
    s.getsockopt(SOL, LINGER, "LINGER", 8)
    s.setsockopt(SOL, LINGER, value, "LINGER")
    s.getsockopt(SOL, LINGER, "LINGER", 8)
    s.setsockopt(SOL, LINGER, value[:4], "LINGER")


@case()
def write_to_closed_peer(t: T) -> None:
    s, p = t.pair()
    p.close()
    s.wait(RDHUP)
    s.send(b"first", NOSIG)
    s.wait(HUP)
    s.send(b"second", NOSIG)
    s.send(b"third", NOSIG)
    s.recv()
    s.recv()


@case()
def read_after_write_to_closed_peer(t: T) -> None:
    s, p = t.pair()
    p.close()
    s.wait(RDHUP)
    s.send(b"first", NOSIG)
    s.wait(HUP)
    s.recv()
    s.recv()
    s.error()


@case()
def so_error_after_write_to_closed_peer(t: T) -> None:
    s, p = t.pair()
    p.close()
    s.wait(RDHUP)
    s.send(b"first", NOSIG)
    s.wait(ERR)
    s.error()
    s.error()
    s.poll()


@table({"send": ("send", (b"x", 0)), "write": ("write", (b"x",)), "writev": ("writev", ([b"x"],)),
        "sendmsg": ("sendmsg", ([b"x"], 0)), "nosignal": ("send", (b"x", NOSIG)),
        "sendmsg-nosignal": ("sendmsg", ([b"x"], NOSIG))})  # fmt: skip
def sigpipe_by(t: T, op: str, args: tuple[object, ...]) -> None:
    s, _ = t.pair()
    s.shutdown(WRITE)
    with t.signals(signal.SIGPIPE) as came:
        t.note(op, t.me.run(op, s.fd, *args))
        t.note("signals", len(came))


@case()
def sigpipe_unconnected(t: T) -> None:
    s = t.socket()
    with t.signals(signal.SIGPIPE) as came:
        s.send(b"x")
        t.note("signals", len(came))


@case()
def sigpipe_after_reset_comes_second(t: T) -> None:
    s, p = t.pair()
    p.reset()
    s.wait(HUP)
    with t.signals(signal.SIGPIPE) as came:
        s.send(b"x")
        t.note("signals", len(came))
        s.send(b"x")
        t.note("signals", len(came))


@case()
def epoll_tells_reset(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, 0)
    p.reset()
    ep.wait()
    s.error()
    ep.wait()


@case()
def peer_process_closes_all(t: T) -> None:
    s, _ = t.pair()
    t.peer.run("forget")
    s.wait(RDHUP)
    s.recv()
    s.poll(IN | OUT)
