# SPDX-License-Identifier: MulanPSL-2.0
"""epoll with several sets, several sockets, kernel descriptors among them, dups, threads, signals and time."""

from __future__ import annotations

import ctypes
import os
import signal

from conformance import libc
from conformance.env import T
from conformance.epoll import ADD, DEL
from conformance.libc import call
from conformance.names import ET, EXCLUSIVE, HUP, IN, ONESHOT, OUT
from conformance.ops import RDHUP
from conformance.registry import LISTEN, PAIR, case, table


@case()
def one_socket_in_two_sets(t: T) -> None:
    s, p = t.pair()
    first, second = t.epoll("ep1"), t.epoll("ep2")
    first.add(s, IN)
    second.add(s, IN | ET)
    p.send(b"x")
    s.queued(1)
    first.now()
    second.now()
    first.now()
    second.now()
    first.remove(s)
    p.send(b"y")
    s.queued(2)
    first.now()
    second.now()


@case()
def pipe_and_socket_in_one_set(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    ep = t.epoll()
    ep.add(s, IN)
    ep.ctl(ADD, reads, "pipe", IN)
    ep.now()
    os.write(writes, b"x")
    ep.now()
    p.send(b"y")
    s.queued(1)
    ep.now()
    os.read(reads, 1)
    ep.now()
    s.recv()
    ep.now()


@table({"pipe": (True,), "socket": (False,)})
def blocked_wait_is_woken_by(t: T, pipe: bool) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    ep = t.epoll()
    ep.add(s, IN)
    ep.ctl(ADD, reads, "pipe", IN)
    task = t.spawn(lambda: ep.wait())
    task.blocked()
    if pipe:
        os.write(writes, b"x")
    else:
        p.send(b"x")
    task.join()


@case()
def maxevents_one_is_fair(t: T) -> None:
    pairs = [t.pair(f"s{n}", f"p{n}") for n in range(3)]
    ep = t.epoll()
    for s, p in pairs:
        ep.add(s, IN)
        p.send(b"x")
        s.quietly("queued", 1)
    seen = [ep.peek(1)[0] for _ in range(9)]
    t.note("each in three rounds", [[who for who, _ in seen].count(f"s{n}") for n in range(3)])


@case()
def maxevents_one_is_fair_to_a_pipe(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    ep = t.epoll()
    ep.add(s, IN)
    ep.ctl(ADD, reads, "pipe", IN)
    os.write(writes, b"x")
    p.send(b"x")
    s.quietly("queued", 1)
    seen = {ep.peek(1)[0][0] for _ in range(4)}
    t.note("seen", sorted(seen))


@case()
def busy_socket_does_not_starve_a_pipe(t: T) -> None:
    s, p = t.pair()
    reads, writes = t.pipe()
    ep = t.epoll()
    ep.add(s, IN)
    ep.ctl(ADD, reads, "pipe", IN)
    p.send(b"never read")
    s.quietly("queued", 10)
    os.write(writes, b"x")
    rounds = 0
    while rounds < 2000 and not any(who == "pipe" for who, _ in ep.peek(4)):
        rounds += 1
    t.note("seen", rounds < 2000)


@case()
def many_sockets_in_one_set(t: T) -> None:
    pairs = [t.pair(f"s{n}", f"p{n}") for n in range(30)]
    ep = t.epoll()
    for s, _ in pairs:
        t.me.run("fcntl", s.fd, 4, os.O_NONBLOCK)
        call("epoll_ctl", ep.fd, ADD, s.fd, ctypes.byref(libc.EpollEvent(IN | ET, s.fd)))
    for s, p in pairs[::3]:
        p.quietly("send", b"x")
        s.quietly("queued", 1)
    t.note("ready", len(ep.peek(64)))
    t.note("ready", len(ep.peek(64)))
    for s, p in pairs[::2]:
        p.quietly("send", b"x")
        s.quietly("queued", 2 if pairs.index((s, p)) % 3 == 0 else 1)
    t.note("ready", len(ep.peek(64)))


@case()
def fewer_slots_than_ready(t: T) -> None:
    pairs = [t.pair(f"s{n}", f"p{n}") for n in range(5)]
    ep = t.epoll()
    for s, p in pairs:
        ep.add(s, IN | ONESHOT)
        p.quietly("send", b"x")
        s.quietly("queued", 1)
    t.note("told", [len(ep.peek(2)) for _ in range(4)])


@case()
def closed_socket_leaves_the_set(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN | OUT)
    s.close()
    ep.now()
    s2, _ = t.pair("s2", "p2")
    t.note("number reused", s2.fd == s.fd)
    ep.now()
    ep.add(s2, OUT)
    ep.now()
    p.wait(RDHUP)


@case()
def closed_socket_with_a_dup_stays_in_the_set(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    d = s.dup("d")
    s.close()
    p.send(b"x")
    d.queued(1)
    ep.now()
    t.note("del by number", ep.ctl(DEL, s.fd, "s", 0))
    d.recv()
    ep.now()


@case()
def dup_is_another_entry(t: T) -> None:
    s, p = t.pair()
    d = s.dup("d")
    ep = t.epoll()
    ep.add(s, IN)
    ep.add(d, IN)
    p.send(b"x")
    s.queued(1)
    ep.now()
    ep.remove(d)
    ep.now()


@case()
def dup_of_the_set(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    again = t.epoll("dup")
    os.dup2(ep.fd, again.fd)
    ep.add(s, IN)
    p.send(b"x")
    s.queued(1)
    again.ctl(ADD, s.fd, "s", IN)
    call("epoll_ctl", again.fd, DEL, s.fd, None)
    ep.now()


@case()
def set_closed_while_sockets_live(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    ep.close()
    p.send(b"x")
    s.recv()
    again = t.epoll("ep2")
    again.add(s, OUT)
    again.now()


@table({"0": (0,), "1": (1,), "30": (30,), "100": (100,)})
def epoll_timeout(t: T, milliseconds: int) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    t.timed("wait", lambda: ep.wait(milliseconds), milliseconds / 1000, 0.5 + milliseconds / 1000)


@case()
def epoll_pwait2_timeout(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    array = (libc.EpollEvent * 4)()
    for seconds in (0.0, 0.0005, 0.03):
        t.timed(
            "epoll_pwait2",
            lambda seconds=seconds: t.call("epoll_pwait2", ep.fd, array, 4, libc.timespec(seconds), None),  # type: ignore[misc]
            seconds,
        )
    t.call("epoll_pwait2", ep.fd, array, 4, ctypes.byref(libc.Timespec(0, 2_000_000_000)), None)
    p.send(b"x")
    t.call("epoll_pwait2", ep.fd, array, 4, None, None)
    t.call("epoll_pwait", ep.fd, array, 4, -1, None)


@case()
def signal_interrupts_epoll(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    with t.signals(signal.SIGUSR1) as came:
        task = t.interrupt()
        ep.wait()
        task.join()
        t.note("signals", len(came))
    p.send(b"x")
    ep.wait()


@case()
def epoll_pwait_masks_a_signal(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    array, every = (libc.EpollEvent * 4)(), ctypes.create_string_buffer(b"\xff" * 128)
    with t.signals(signal.SIGUSR1) as came:
        os.kill(os.getpid(), signal.SIGUSR1)
        t.note("before", len(came))
        task = t.interrupt()
        t.timed("epoll_pwait", lambda: t.call("epoll_pwait", ep.fd, array, 4, 150, every), 0.15)
        task.join()
        t.note("after", len(came))
    p.send(b"x")
    ep.wait()


@case()
def added_while_another_thread_waits(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    task = t.spawn(lambda: ep.wait())
    task.blocked()
    ep.add(s, IN)
    p.send(b"x")
    task.join()


@case()
def added_ready_while_another_thread_waits(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    task = t.spawn(lambda: ep.wait())
    task.blocked()
    ep.add(s, OUT)
    task.join()


@case()
def changed_while_another_thread_waits(t: T) -> None:
    s, _ = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    task = t.spawn(lambda: ep.wait())
    task.blocked()
    ep.mod(s, IN | OUT)
    task.join()


@case()
def two_threads_wait_on_one_set(t: T) -> None:
    s, p = t.pair()
    s2, p2 = t.pair("s2", "p2")
    ep = t.epoll()
    ep.add(s, IN | ONESHOT)
    ep.add(s2, IN | ONESHOT)
    got: list[str] = []
    tasks = [t.spawn(lambda: got.extend(who for who, _ in ep.peek(1, 2000))) for _ in range(2)]
    for task in tasks:
        task.blocked()
    p.send(b"x")
    p2.send(b"x")
    for task in tasks:
        task.join()
    t.note("each once", sorted(got))


@case(LISTEN)
def two_sets_wait_for_one_listener(t: T) -> None:
    listener, address = t.listener()
    listener.nonblock()
    sets = [t.epoll(f"ep{n}") for n in range(2)]
    tasks = []
    for ep in sets:
        ep.add(listener, IN)
        tasks.append(t.spawn(lambda ep=ep: ep.wait()))  # type: ignore[misc]
    for task in tasks:
        task.blocked()
    t.dial(address)
    for task in tasks:
        task.join()
    listener.accept()
    listener.accept()


@case(PAIR)
def set_with_reset_and_closed_sockets(t: T) -> None:
    pairs = [t.pair(f"s{n}", f"p{n}") for n in range(3)]
    ep = t.epoll()
    for s, _ in pairs:
        ep.add(s, IN | RDHUP)
    pairs[0][1].reset()
    pairs[1][1].close()
    pairs[2][1].send(b"x")
    pairs[0][0].wait(HUP)
    pairs[1][0].wait(RDHUP)
    pairs[2][0].wait(IN)
    ep.now()
    pairs[0][0].close()
    pairs[1][0].close()
    ep.now()


@case()
def level_is_told_to_all_who_wait(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    tasks = [t.spawn(lambda: ep.wait()) for _ in range(3)]
    for task in tasks:
        task.blocked()
    p.send(b"x")
    for task in tasks:
        task.join()


@case()
def set_closed_while_another_thread_waits(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    task = t.spawn(lambda: t.note("told", ep.peek(4, 100)))
    task.blocked()
    ep.close()
    task.join()
    p.send(b"x")
    s.recv()


@case()
def set_inherited_by_a_child(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    running = t.fork(lambda: ep.wait())
    p.send(b"x")
    running.join()
    ep.wait()
    s.recv()


@case(LISTEN)
def oneshot_listener_fires_once(t: T) -> None:
    listener, address = t.listener()
    ep = t.epoll()
    ep.add(listener, IN | ONESHOT)
    t.dial(address, label="p1")
    ep.wait()
    t.dial(address, label="p2")
    listener.wait(IN)
    ep.now()
    ep.mod(listener, IN | ONESHOT)
    ep.now()
    ep.now()


@case(LISTEN)
def exclusive_children_serve_one_each(t: T) -> None:
    listener, address = t.listener()

    def child() -> None:
        ep = t.epoll()
        ep.add(listener, IN | EXCLUSIVE)
        ep.wait()
        listener.accept("a").send(b"served")  # may block: "exclusive" wakes at least one, and the other may be first

    children = [t.fork(child) for _ in range(2)]
    for n in range(2):
        t.dial(address, label=f"p{n}").recv()
    for running in children:
        running.join()
