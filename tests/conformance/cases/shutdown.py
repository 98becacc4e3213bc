# SPDX-License-Identifier: MulanPSL-2.0
"""Shutdown, half close, end of stream."""

from __future__ import annotations

import socket

from conformance.env import T
from conformance.names import BOTH, ERR, HUP, IN, OUT, READ, WRITE
from conformance.ops import RDHUP
from conformance.registry import DIAL, LISTEN, PAIR, SOLO, case, table

NOSIG = socket.MSG_NOSIGNAL
HOWS = {"rd": (READ,), "wr": (WRITE,), "rdwr": (BOTH,)}


@table(HOWS)
def shutdown_then_every_call(t: T, how: int) -> None:
    s, p = t.pair()
    s.shutdown(how)
    if how != READ:
        p.wait(RDHUP)
        p.recv()
    s.poll()
    s.send(b"after", NOSIG)
    s.recv(10, socket.MSG_DONTWAIT)
    s.getpeername()
    s.shutdown(how)
    s.error()


@table(HOWS)
def shutdown_at_peer_then_every_call(t: T, how: int) -> None:
    s, p = t.pair()
    p.shutdown(how)
    if how != READ:
        s.wait(RDHUP)
        s.recv()
        s.recv()
    s.poll()
    s.send(b"x", NOSIG)
    s.wait(HUP if how == BOTH else OUT)


@table({"nothing": (b"",), "something": (b"last words",)})
def end_after(t: T, last: bytes) -> None:
    s, p = t.pair()
    if last:
        p.send(last)
    p.close()
    s.wait(RDHUP)
    s.recv()
    s.recv()
    s.recv(0)
    s.poll()


@case()
def half_close_ours_then_peer_answers(t: T) -> None:
    s, p = t.pair()
    s.send(b"question")
    s.shutdown(WRITE)
    p.wait(RDHUP)
    p.recv()
    p.recv()
    p.send(b"answer")
    p.close()
    s.wait(RDHUP)
    s.wait(HUP)
    s.recv()
    s.recv()
    s.poll()


@case()
def half_close_theirs_then_we_answer(t: T) -> None:
    s, p = t.pair()
    p.send(b"question")
    p.shutdown(WRITE)
    s.wait(RDHUP)
    s.recv()
    s.recv()
    s.send(b"answer")
    p.recv()
    s.close()
    p.wait(HUP)
    p.recv()


@case()
def both_half_close(t: T) -> None:
    s, p = t.pair()
    s.shutdown(WRITE)
    p.wait(RDHUP)
    p.shutdown(WRITE)
    s.wait(HUP)
    p.wait(HUP)
    s.recv()
    p.recv()
    s.send(b"x", NOSIG)
    s.getpeername()
    s.shutdown(BOTH)


@case()
def shutdown_read_with_data_waiting(t: T) -> None:
    s, p = t.pair()
    p.send(b"before")
    s.wait(IN)
    s.shutdown(READ)
    s.poll()
    s.recv(3)
    s.recv()
    s.recv(10, socket.MSG_DONTWAIT)


@case()
def shutdown_read_then_peer_sends(t: T) -> None:
    s, p = t.pair()
    s.shutdown(READ)
    s.recv()
    p.send(b"later")
    s.queued(5)
    s.recv()
    s.recv(10, socket.MSG_DONTWAIT)


@case()
def shutdown_read_then_peer_closes(t: T) -> None:
    s, p = t.pair()
    s.shutdown(READ)
    p.close()
    s.wait(RDHUP)
    s.send(b"x", NOSIG)
    s.wait(ERR)
    s.recv()
    s.send(b"x", NOSIG)
    s.error()
    s.recv()


@case()
def shutdown_rdwr_wakes_our_reader(t: T) -> None:
    s, _ = t.pair()
    task = t.spawn(lambda: s.recv())
    task.blocked()
    s.shutdown(BOTH)
    task.join()


@case()
def shutdown_read_wakes_our_reader(t: T) -> None:
    s, _ = t.pair()
    task = t.spawn(lambda: s.recv())
    task.blocked()
    s.shutdown(READ)
    task.join()


@case()
def shutdown_write_leaves_our_reader(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: s.recv())
    task.blocked()
    s.shutdown(WRITE)
    p.wait(RDHUP)
    p.send(b"still read")
    task.join()


@case()
def shutdown_write_wakes_our_writer(t: T) -> None:
    s, _ = t.pair()
    s.fill()
    task = t.spawn(lambda: s.send(b"x", NOSIG))
    task.blocked()
    s.shutdown(WRITE)
    task.join()


@case()
def data_before_shutdown_arrives(t: T) -> None:
    s, p = t.pair()
    p.begin("recv_all", 300000, 65536)
    s.send_all(200000)
    s.shutdown(WRITE)
    p.finish("recv_all")


@case()
def data_before_close_arrives(t: T) -> None:
    s, p = t.pair()
    p.begin("recv_all", 300000, 65536)
    s.send_all(200000)
    s.close()
    p.finish("recv_all")


@table({"wrong": (3,), "negative": (-1,)})
def shutdown_wrong_how(t: T, how: int) -> None:
    s, p = t.pair()
    s.shutdown(how)
    p.send(b"still there")
    s.recv()


@table(HOWS, SOLO)
def shutdown_unconnected(t: T, how: int) -> None:
    s = t.socket()
    s.shutdown(how)
    s.poll()
    s.recv(10, socket.MSG_DONTWAIT)


@case(LISTEN)
def shutdown_listener_read(t: T) -> None:
    listener, address = t.listener()
    listener.shutdown(READ)
    listener.poll()
    listener.nonblock()
    listener.accept()
    p = t.socket("p", end=t.peer)
    p.connect(address)


@case(LISTEN)
def shutdown_listener_wakes_accept(t: T) -> None:
    listener, _ = t.listener()
    task = t.spawn(lambda: listener.accept())
    task.blocked()
    listener.shutdown(BOTH)
    task.join()


@case(LISTEN)
def shutdown_listener_write(t: T) -> None:
    listener, address = t.listener()
    listener.shutdown(WRITE)
    p = t.socket("p", end=t.peer)
    p.connect(address)
    listener.wait(IN)
    listener.accept().getpeername()


@case(LISTEN)
def shutdown_listener_then_listen_again(t: T) -> None:
    listener, address = t.listener()
    listener.shutdown(BOTH)
    listener.listen()
    p = t.socket("p", end=t.peer)
    p.connect(address)
    listener.poll(IN, 100)


@case(DIAL)
def shutdown_while_connecting_fails(t: T) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.nonblock()
    s.shutdown(WRITE)
    s.connect(address)
    s.wait(OUT)
    s.shutdown(WRITE)
    s.send(b"x", NOSIG)


@case(PAIR)
def end_is_told_again_and_again(t: T) -> None:
    s, p = t.pair()
    p.shutdown(WRITE)
    s.wait(RDHUP)
    for _ in range(3):
        s.recv()
        s.read(5)
        s.readv([2, 2])
        s.poll()
