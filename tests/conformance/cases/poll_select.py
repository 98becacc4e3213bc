# SPDX-License-Identifier: MulanPSL-2.0
"""poll, ppoll, select, pselect."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket

from conformance import libc
from conformance.env import T
from conformance.names import HUP, IN, OUT, PRI, WRITE
from conformance.ops import RDHUP
from conformance.registry import DIAL, LISTEN, PAIR, SOLO, case, table


@case()
def poll_states_of_a_connection(t: T) -> None:
    s, p = t.pair()
    s.poll()
    p.send(b"x")
    s.wait(IN)
    s.poll(0)
    s.poll(OUT)
    s.poll(0x3FF)
    p.shutdown(WRITE)
    s.wait(RDHUP)
    s.poll(IN)
    s.shutdown(WRITE)
    s.wait(HUP)
    s.poll(0)


@case()
def poll_full(t: T) -> None:
    s, p = t.pair()
    s.fill()
    s.poll()
    p.drain()
    s.wait(OUT)


@case()
def poll_negative_and_closed(t: T) -> None:
    s, _ = t.pair()
    t.poll([(-1, IN), (s, OUT), (7005, IN), (-5, OUT)])


@case()
def poll_same_socket_twice(t: T) -> None:
    s, p = t.pair()
    p.send(b"x")
    s.wait(IN)
    t.poll([(s, IN), (s, OUT), (s, IN | OUT)])


@case()
def poll_mixed_with_pipes(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    t.poll([(reads, IN), (s, IN), (writes, OUT)])
    p.send(b"x")
    s.wait(IN)
    os.write(writes, b"x")
    t.poll([(reads, IN), (s, IN), (writes, OUT)])


@table({"pipe": (True,), "socket": (False,)})
def poll_blocked_is_woken_by(t: T, pipe: bool) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    task = t.spawn(lambda: t.poll([(s, IN), (reads, IN)], 2000))
    task.blocked()
    if pipe:
        os.write(writes, b"x")
    else:
        p.send(b"x")
    task.join()


@table({"reset": (True,), "end": (False,)})
def poll_blocked_is_woken_by_an(t: T, reset: bool) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: t.poll([(s, IN)], 2000))
    task.blocked()
    if reset:
        p.reset()
    else:
        p.close()
    task.join()


@case()
def poll_blocked_without_events_is_woken_by_reset(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: t.poll([(s, 0)], 2000))
    task.blocked()
    p.reset()
    task.join()


@case()
def poll_blocked_is_woken_by_room(t: T) -> None:
    s, p = t.pair()
    s.fill()
    task = t.spawn(lambda: t.poll([(s, OUT)], 2000))
    task.blocked()
    p.drain()
    task.join()


@table({"0": (0,), "1": (1,), "40": (40,)})
def poll_timeout(t: T, milliseconds: int) -> None:
    s, _ = t.pair()
    t.timed("poll", lambda: t.poll([(s, IN)], milliseconds), milliseconds / 1000)


@case()
def poll_nothing(t: T) -> None:
    t.timed("poll", lambda: t.poll([], 20), 0.02)


@case()
def poll_many(t: T) -> None:
    pairs = [t.pair(f"s{n}", f"p{n}") for n in range(20)]
    for s, p in pairs[::4]:
        p.quietly("send", b"x")
        s.quietly("queued", 1)
    t.poll([(s, IN) for s, _ in pairs])


@case(DIAL)
def poll_connecting(t: T) -> None:
    _, address = t.listener(end=t.peer)
    s = t.socket()
    s.nonblock()
    s.connect(address)
    t.poll([(s, OUT)], 2000)
    s.error()


@case(DIAL)
def poll_connect_refused(t: T) -> None:
    s = t.socket()
    s.nonblock()
    s.connect((t.there, t.port()))
    t.poll([(s, OUT)], 2000)
    s.error()
    t.poll([(s, OUT)])


@case(LISTEN)
def poll_listener(t: T) -> None:
    listener, address = t.listener()
    t.poll([(listener, IN | OUT | PRI)])
    task = t.spawn(lambda: t.poll([(listener, IN | OUT)], 2000))
    task.blocked()
    t.dial(address)
    task.join()


@case(SOLO)
def poll_fresh(t: T) -> None:
    t.poll([(t.socket(), IN | OUT | RDHUP)])


@case()
def ppoll_timeout_and_signal(t: T) -> None:
    s, p = t.pair()
    slot = libc.Pollfd(s.fd, IN, 0)
    args = (ctypes.byref(slot), ctypes.c_ulong(1))
    t.timed("ppoll", lambda: t.call("ppoll", *args, libc.timespec(0.03), None), 0.03)
    with t.signals(signal.SIGUSR1) as came:
        task = t.interrupt()
        t.call("ppoll", *args, None, None)
        task.join()
        t.note("signals", len(came))
    p.send(b"x")
    t.call("ppoll", *args, None, None)


@case()
def signal_interrupts_poll(t: T) -> None:
    s, _ = t.pair()
    with t.signals(signal.SIGUSR1, restart=True) as came:
        task = t.interrupt()
        t.poll([(s, IN)], 2000)
        task.join()
        t.note("signals", len(came))


@case()
def select_states(t: T) -> None:
    s, p = t.pair()
    t.select([s], [s], [s])
    p.send(b"x")
    s.wait(IN)
    t.select([s], [s], [s])
    t.select([s], [], [])
    p.reset()
    s.wait(HUP)
    t.select([s], [s], [s])


@case()
def select_end(t: T) -> None:
    s, p = t.pair()
    p.close()
    s.wait(RDHUP)
    t.select([s], [s], [s])


@case()
def select_blocked(t: T) -> None:
    s, p = t.pair()
    task = t.spawn(lambda: t.select([s], [], [], 2.0))
    task.blocked()
    p.send(b"x")
    task.join()


@case()
def select_timeout(t: T) -> None:
    s, _ = t.pair()
    t.timed("select", lambda: t.select([s], [], [], 0.03), 0.03)


@case()
def select_closed(t: T) -> None:
    s, _ = t.pair()
    s.close()
    t.select([s], [], [])


@case()
def select_large_descriptor(t: T) -> None:
    s, p = t.pair()
    d = s.sock(s.quietly("fcntl", 0, 1500), "d")
    t.note("large", d.fd >= 1500)
    p.send(b"x")
    s.wait(IN)
    t.select([d], [d], [])
    t.poll([(d, IN | OUT)])
    ep = t.epoll()
    ep.add(d, IN)
    ep.now()
    d.close()


@case()
def select_mixed_with_pipe(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    pipe = s.sock(reads, "pipe")
    t.select([s, pipe], [], [])
    os.write(writes, b"x")
    t.select([s, pipe], [], [])
    p.send(b"x")
    s.wait(IN)
    t.select([s, pipe], [s], [])


@case()
def signal_interrupts_select(t: T) -> None:
    s, _ = t.pair()
    with t.signals(signal.SIGUSR1) as came:
        task = t.interrupt()
        t.select([s], [], [], 2.0)
        task.join()
        t.note("signals", len(came))


@case()
def pselect_waits_and_tells(t: T) -> None:
    s, p = t.pair()
    bits = (ctypes.c_ubyte * 128)()
    bits[s.fd // 8] |= 1 << s.fd % 8
    t.timed("pselect", lambda: t.call("pselect", s.fd + 1, bits, None, None, libc.timespec(0.03), None), 0.03)
    bits[s.fd // 8] |= 1 << s.fd % 8
    p.send(b"x")
    t.call("pselect", s.fd + 1, bits, None, None, libc.timespec(2), None)


@case()
def urgent_data_is_exceptional(t: T) -> None:
    s, p = t.pair()
    p.send(b"!", socket.MSG_OOB)
    s.wait(PRI)
    t.select([s], [], [s])


@case(PAIR)
def pythons_poll_object(t: T) -> None:
    s, p = t.pair()
    poller = select.poll()
    poller.register(s.fd, select.POLLIN)
    t.note("empty", len(poller.poll(0)))
    p.send(b"x")
    t.note("events", [bits for _, bits in poller.poll(2000)])


@case()
def poll_of_nowhere(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    t.call("poll", None, ctypes.c_ulong(1), 0)
    t.call("poll", ctypes.byref(libc.Pollfd(s.fd, IN, 0)), ctypes.c_ulong(1 << 40), 0)


@case()
def select_beyond_the_usual_size(t: T) -> None:
    s, p = t.pair()
    q, r = t.pair("q", "r")
    d = s.sock(s.quietly("fcntl", 0, 1500), "d")
    r.send(b"x")
    q.queued(1)
    t.select([q, d], [], [])
    p.send(b"x")
    s.wait(IN)
    t.select([q, d], [q], [])
    d.close()
