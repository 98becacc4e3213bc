# SPDX-License-Identifier: MulanPSL-2.0
"""epoll: level, edge, one shot; what a socket's states look like; epoll_ctl's errors."""

from __future__ import annotations

import socket

from conformance.env import T
from conformance.epoll import ADD, DEL, MOD
from conformance.names import ERR, ET, EXCLUSIVE, HUP, IN, ONESHOT, OUT, WAKEUP, WRITE
from conformance.ops import RDHUP
from conformance.registry import DIAL, LISTEN, SOLO, case, table

NOSIG, DONTWAIT = socket.MSG_NOSIGNAL, socket.MSG_DONTWAIT
STYLES = {"level": (0,), "edge": (ET,), "oneshot": (ONESHOT,), "edge-oneshot": (ET | ONESHOT,)}

WAITING = {"level": (0,), "edge": (ET,)}  # a fresh socket is "hup": one shot would be spent on that


@table(STYLES)
def epoll_data_arrives(t: T, style: int) -> None:
    s, p = t.pair(nonblock=True)
    ep = t.epoll()
    ep.add(s, IN | style)
    ep.now()
    p.send(b"abc")
    ep.wait()
    ep.now()
    p.send(b"def")
    s.queued(6)
    ep.now()
    s.recv()
    ep.now()
    p.send(b"ghi")
    s.queued(3)
    ep.now()


@table(STYLES)
def epoll_added_when_ready(t: T, style: int) -> None:
    s, p = t.pair()
    p.send(b"abc")
    s.queued(3)
    ep = t.epoll()
    ep.add(s, IN | OUT | style)
    ep.now()
    ep.now()


@table(STYLES)
def epoll_partial_read(t: T, style: int) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | style)
    p.send(b"abcdef")
    s.queued(6)
    ep.now()
    s.recv(2)
    ep.now()
    p.send(b"gh")
    s.queued(6)
    ep.now()
    ep.now()


@table(STYLES)
def epoll_mod_arms_again(t: T, style: int) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | style)
    p.send(b"abc")
    s.queued(3)
    ep.now()
    ep.now()
    ep.mod(s, IN | style)
    ep.now()
    ep.now()
    ep.mod(s, OUT | style)
    ep.now()
    ep.mod(s, 0)
    ep.now()


@table(STYLES)
def epoll_end(t: T, style: int) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | RDHUP | style)
    p.shutdown(WRITE)
    s.wait(RDHUP)
    ep.now()
    s.recv()
    ep.now()


@table(STYLES)
def epoll_reset(t: T, style: int) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | style)
    p.reset()
    s.wait(HUP)
    ep.now()
    ep.now()
    s.recv()
    ep.now()


@table(STYLES)
def epoll_hangup_of_both(t: T, style: int) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | OUT | RDHUP | style)
    p.shutdown(WRITE)
    s.wait(RDHUP)
    ep.now()
    s.shutdown(WRITE)
    s.wait(HUP)
    ep.now()
    ep.now()


@table(STYLES)
def epoll_room_to_write(t: T, style: int) -> None:
    s, p = t.pair(nonblock=True)
    ep = t.epoll()
    ep.add(s, OUT | style)
    ep.now()
    ep.now()
    s.fill()
    ep.now()
    p.drain()
    s.wait(OUT)
    ep.now()


@table(STYLES, LISTEN)
def epoll_listener(t: T, style: int) -> None:
    listener, address = t.listener()
    ep = t.epoll()
    ep.add(listener, IN | style)
    ep.now()
    t.dial(address, label="p1")
    ep.wait()
    ep.now()
    t.accepted(listener, "a1")
    ep.now()
    t.dial(address, label="p2")
    listener.wait(IN)
    ep.now()


@table(STYLES, DIAL)
def epoll_connecting(t: T, style: int) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.nonblock()
    ep = t.epoll()
    s.connect(address)
    ep.add(s, OUT | style)
    s.wait(OUT)
    ep.wait()
    ep.now()
    s.error()


@table(STYLES, DIAL)
def epoll_connect_refused(t: T, style: int) -> None:
    s = t.socket()
    s.nonblock()
    ep = t.epoll()
    s.connect((t.there, t.port()))
    ep.add(s, IN | OUT | style)
    s.wait(HUP)
    ep.wait()
    s.error()
    ep.now()


@table(WAITING, DIAL)
def epoll_added_before_connect(t: T, style: int) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.nonblock()
    ep = t.epoll()
    ep.add(s, IN | OUT | RDHUP | style)
    ep.now()
    s.connect(address)
    s.wait(OUT)
    ep.until({"s": OUT})
    s.error()


@table(WAITING, LISTEN)
def epoll_added_before_listen(t: T, style: int) -> None:
    s = t.socket("l")
    ep = t.epoll()
    ep.add(s, IN | style)
    ep.now()
    address = (t.here, t.port())
    s.bind(address)
    s.listen()
    t.dial(address)
    ep.until({"l": IN})
    s.accept()


@case(SOLO)
def epoll_fresh_socket(t: T) -> None:
    s = t.socket()
    ep = t.epoll()
    ep.add(s, IN | OUT | RDHUP)
    ep.now()
    s.bind((t.here, t.port()))
    ep.now()


@case()
def epoll_events_nobody_asked_for(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, 0)
    p.send(b"data")
    s.queued(4)
    ep.now()
    p.close()
    s.wait(RDHUP)
    ep.now()
    s.shutdown(WRITE)
    s.wait(HUP)
    ep.now()


@case()
def epoll_rdhup_only(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, RDHUP)
    p.send(b"data")
    s.queued(4)
    ep.now()
    p.shutdown(WRITE)
    ep.wait()


@case()
def epoll_oneshot_keeps_hangup_to_itself(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | ONESHOT)
    p.send(b"x")
    ep.wait()
    p.reset()
    s.wait(HUP)
    ep.now()
    ep.mod(s, ONESHOT)
    ep.now()


@case()
def epoll_edge_of_read_to_empty_and_back(t: T) -> None:
    s, p = t.pair(nonblock=True)
    ep = t.epoll()
    ep.add(s, IN | OUT | RDHUP | ET)
    ep.now()
    for _ in range(3):
        p.send(b"ping")
        s.queued(4)
        ep.now()
        s.recv()
        s.recv()
        ep.now()


@case()
def epoll_edge_same_events_after_mod(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, OUT | ET)
    ep.now()
    ep.mod(s, IN | OUT | ET)
    ep.now()
    ep.now()
    p.send(b"x")
    s.queued(1)
    ep.now()


@case()
def epoll_delete_and_add(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | ET)
    p.send(b"x")
    s.queued(1)
    ep.remove(s)
    ep.now()
    ep.add(s, IN | ET)
    ep.now()
    ep.now()


@case()
def epoll_deleted_tells_nothing(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    p.send(b"x")
    ep.wait()
    ep.remove(s)
    ep.now()
    p.reset()
    s.wait(HUP)
    ep.now()


@case()
def epoll_ctl_errors(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    ep.mod(s, IN)
    ep.remove(s)
    ep.add(s, IN)
    ep.add(s, OUT)
    ep.ctl(77, s.fd, "s", IN)
    ep.ctl(ADD, 7003, "closed", IN)
    ep.ctl(MOD, 7003, "closed", IN)
    ep.ctl(DEL, -1, "minus", IN)
    ep.ctl(ADD, ep.fd, "itself", IN)
    ep.remove(s)
    ep.remove(s)


@case()
def epoll_ctl_on_no_epoll(t: T) -> None:
    s, p_fd = t.pair()[0], t.pipe()[0]
    for fd in (s.fd, p_fd, 7004, -1):
        t.call("epoll_ctl", fd, ADD, s.fd, None)
        t.call("epoll_wait", fd, bytes(12), 1, 0)


@case()
def epoll_wait_arguments(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    ep.add(s, OUT)
    ep.wait(0, 0)
    ep.wait(0, -1)
    t.call("epoll_wait", ep.fd, None, 1, 0)
    t.call("epoll_ctl", ep.fd, ADD, s.fd, None)


@case(SOLO)
def epoll_create_arguments(t: T) -> None:
    t.call("epoll_create", 0)
    t.call("epoll_create", -1)
    t.call("epoll_create1", 0x1234)


@case()
def epoll_wakeup_flag(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    ep.add(s, OUT | WAKEUP)
    ep.now()


@case()
def epoll_exclusive(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | EXCLUSIVE)
    p.send(b"x")
    ep.wait()
    ep.mod(s, IN)
    ep.remove(s)
    ep.add(s, IN | EXCLUSIVE | ONESHOT)
    ep.add(s, IN | EXCLUSIVE | RDHUP)
    ep.add(s, IN | OUT | ET | EXCLUSIVE)
    ep.now()


@case(LISTEN)
def epoll_exclusive_listener_wakes_someone(t: T) -> None:
    listener, address = t.listener()
    listener.nonblock()
    sets = [t.epoll(f"ep{n}") for n in range(3)]
    for ep in sets:
        ep.add(listener, IN | EXCLUSIVE)
    t.dial(address)
    listener.wait(IN)
    t.note("most told to one", max(len(ep.peek(4)) for ep in sets))
    listener.accept()
    for ep in sets:
        ep.now()


@case()
def epoll_data_is_kept(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.ctl(ADD, s.fd, "one", OUT)
    ep.now()
    ep.ctl(MOD, s.fd, "two", OUT | IN)
    ep.now()
    p.send(b"x")
    s.queued(1)
    ep.now()


@case()
def epoll_error_after_our_shutdown(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | OUT | RDHUP)
    s.shutdown(socket.SHUT_RDWR)
    p.wait(RDHUP)
    ep.now()
    p.close()
    s.wait(HUP)
    ep.now()
    s.send(b"x", NOSIG)
    s.recv(1, DONTWAIT)
    s.error()
    t.note("err bit", ERR)


@case()
def epoll_shutdown_read_is_an_edge(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    ep.add(s, IN | RDHUP | ET)
    ep.now()
    s.shutdown(socket.SHUT_RD)
    ep.now()
    ep.now()
