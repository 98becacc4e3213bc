# SPDX-License-Identifier: MulanPSL-2.0
"""epoll sets that are themselves polled, selected, or in another set."""

from __future__ import annotations

import os

from conformance.env import T
from conformance.epoll import ADD
from conformance.names import ET, IN, ONESHOT, OUT
from conformance.registry import SOLO, case, table


@case()
def nested_set(t: T) -> None:
    s, p = t.pair()
    inner, outer = t.epoll("inner"), t.epoll("outer")
    inner.add(s, IN)
    outer.add(inner, IN)
    outer.now()
    p.send(b"x")
    outer.wait()
    inner.now()
    outer.now()
    s.recv()
    outer.now()
    inner.now()


@case()
def nested_set_edge(t: T) -> None:
    s, p = t.pair()
    inner, outer = t.epoll("inner"), t.epoll("outer")
    outer.add(inner, IN | ET)
    inner.add(s, IN)
    p.send(b"x")
    outer.wait()
    outer.now()
    inner.now()
    s.recv()
    inner.now()
    p.send(b"y")
    outer.wait()


@case()
def nested_set_added_when_ready(t: T) -> None:
    s, _ = t.pair()
    inner, outer = t.epoll("inner"), t.epoll("outer")
    inner.add(s, OUT)
    outer.add(inner, IN)
    outer.now()
    inner.remove(s)
    outer.now()


@case(SOLO)
def nested_loop_is_refused(t: T) -> None:
    first, second = t.epoll("ep1"), t.epoll("ep2")
    first.add(second, IN)
    second.add(first, IN)


@case()
def set_polled(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    t.poll([(ep.fd, IN | OUT)])
    p.send(b"x")
    s.queued(1)
    t.poll([(ep.fd, IN | OUT)], 2000)
    ep.now()
    s.recv()
    t.poll([(ep.fd, IN | OUT)])


@case()
def set_selected_while_blocked(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    task = t.spawn(lambda: t.poll([(ep.fd, IN)], 2000))
    task.blocked()
    p.send(b"x")
    task.join()


@case()
def nested_deep(t: T) -> None:
    s, p = t.pair()
    sets = [t.epoll(f"ep{n}") for n in range(4)]
    for outer, inner in zip(sets[1:], sets, strict=False):
        outer.add(inner, IN)
    sets[0].add(s, IN | ET)
    for ep in sets:
        ep.now()
    p.send(b"x")
    sets[3].wait()
    sets[2].now()
    sets[0].now()
    for ep in sets:
        ep.now()
    sets[0].add(sets[3], IN)


@table({"level": (0,), "edge": (ET,), "oneshot": (ONESHOT,)})
def nested_with_a_pipe_and_a_socket(t: T, style: int) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    inner, outer = t.epoll("inner"), t.epoll("outer")
    inner.add(s, IN)
    inner.ctl(ADD, reads, "pipe", IN)
    outer.add(inner, IN | style)
    outer.now()
    p.send(b"x")
    outer.wait()
    os.write(writes, b"x")
    inner.now(ordered=False)
    s.recv()
    os.read(reads, 1)
    outer.peek(4)  # what one shot or an edge left over is told or not: the pipe came while the socket was told
    outer.mod(inner, IN | style)
    outer.now()
    os.write(writes, b"x")
    outer.wait()


@case()
def nested_in_two_sets(t: T) -> None:
    s, p = t.pair()
    inner, one, two = t.epoll("inner"), t.epoll("one"), t.epoll("two")
    inner.add(s, IN)
    one.add(inner, IN)
    two.add(inner, IN | ET)
    p.send(b"x")
    s.queued(1)
    one.wait()
    two.wait()
    one.now()
    two.now()
    one.remove(inner)
    one.now()
    two.mod(inner, IN | ET)
    two.now()


@case()
def nested_inner_closed(t: T) -> None:
    s, p = t.pair()
    inner, outer = t.epoll("inner"), t.epoll("outer")
    inner.add(s, IN)
    outer.add(inner, IN)
    p.send(b"x")
    s.queued(1)
    outer.wait()
    inner.close()
    outer.now()
    s.recv()


@case()
def nested_blocked_wait(t: T) -> None:
    s, p = t.pair()
    inner, outer = t.epoll("inner"), t.epoll("outer")
    outer.add(inner, IN)
    task = t.spawn(lambda: outer.wait())
    task.blocked()
    inner.add(s, IN)
    p.send(b"x")
    task.join()


@case()
def nested_set_polled(t: T) -> None:
    s, p = t.pair()
    inner, outer = t.epoll("inner"), t.epoll("outer")
    inner.add(s, IN)
    outer.add(inner, IN)
    task = t.spawn(lambda: t.poll([(outer.fd, IN)], 2000))
    task.blocked()
    p.send(b"x")
    task.join()
    s.recv()
    t.poll([(outer.fd, IN)])


@case()
def set_polled_in_vain_while_another_thread_waits(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    task = t.spawn(lambda: ep.wait())
    task.blocked()
    t.poll([(ep.fd, IN)], 20)
    p.send(b"x")
    task.join()


@case()
def empty_set_polled_gets_a_socket(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    task = t.spawn(lambda: t.poll([(ep.fd, IN)], 2000))
    task.blocked()
    ep.add(s, OUT)
    task.join()
