# SPDX-License-Identifier: MulanPSL-2.0
"""fork, exec, posix_spawn."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from conformance.env import T
from conformance.names import IN, OUT
from conformance.ops import RDHUP
from conformance.registry import DIAL, LISTEN, PAIR, case

DONTWAIT, NOSIG = socket.MSG_DONTWAIT, socket.MSG_NOSIGNAL


@case()
def child_uses_the_connection(t: T) -> None:
    s, p = t.pair()

    def child() -> None:
        s.send(b"from the child")
        s.recv()

    p.quietly("send", b"to the child")
    t.fork(child).join()
    p.recv()


@case()
def parent_closes_child_goes_on(t: T) -> None:
    s, p = t.pair()
    gate = t.gate()

    def child() -> None:
        gate.wait()
        s.send(b"from the child")
        s.close()

    running = t.fork(child)
    s.close()
    p.poll(RDHUP, 30)
    gate.open()
    p.recv()
    running.join()
    p.wait(RDHUP)


@case()
def child_closes_parent_goes_on(t: T) -> None:
    s, p = t.pair()
    t.fork(lambda: s.close()).join()
    p.poll(RDHUP, 30)
    s.send(b"from the parent")
    p.recv()
    s.close()
    p.wait(RDHUP)


@case()
def child_ends_parent_goes_on(t: T) -> None:
    s, p = t.pair()
    t.fork(lambda: None).join()
    s.send(b"from the parent")
    p.recv()
    p.send(b"back")
    s.recv()


@case()
def child_is_killed_parent_goes_on(t: T) -> None:
    s, p = t.pair()

    def child() -> None:
        s.send(b"last")
        os.kill(os.getpid(), signal.SIGKILL)

    t.fork(child).join()
    p.recv()
    p.poll(RDHUP, 30)
    s.send(b"from the parent")
    p.recv()


@case()
def child_shuts_down_for_both(t: T) -> None:
    s, p = t.pair()
    t.fork(lambda: s.shutdown(socket.SHUT_WR)).join()
    p.wait(RDHUP)
    s.send(b"x", NOSIG)


@case()
def both_processes_read_in_turn(t: T) -> None:
    s, p = t.pair()
    p.send(b"abcdef")
    s.queued(6)
    s.recv(2)
    t.fork(lambda: s.recv(2)).join()
    s.recv(2)
    t.fork(lambda: s.recv(2, DONTWAIT)).join()


@case()
def both_processes_write_in_turn(t: T) -> None:
    s, p = t.pair()
    s.send(b"1")
    t.fork(lambda: s.send(b"2")).join()
    s.send(b"3")
    t.fork(lambda: s.send(b"4")).join()
    p.queued(4)
    p.recv()


@case()
def child_blocks_in_recv(t: T) -> None:
    s, p = t.pair()
    running = t.fork(lambda: s.recv())
    p.send(b"for whoever reads")
    running.join()
    s.recv(10, DONTWAIT)


@case()
def nonblock_set_in_child_is_shared(t: T) -> None:
    s, _ = t.pair()
    t.fork(lambda: s.nonblock()).join()
    s.fcntl(3, label="F_GETFL")
    s.recv()


@case()
def grandchild_uses_the_connection(t: T) -> None:
    s, p = t.pair()

    def child() -> None:
        s.send(b"child ")
        t.fork(lambda: s.send(b"grandchild")).join()

    t.fork(child).join()
    p.queued(16)
    p.recv()


@case(LISTEN)
def child_accepts(t: T) -> None:
    listener, address = t.listener()

    def child() -> None:
        a = listener.accept()
        a.send(b"served by the child")

    running = t.fork(child)
    p = t.dial(address)
    p.recv()
    running.join()
    p.wait(RDHUP)
    p2 = t.dial(address, label="p2")
    t.accepted(listener, "a2").send(b"served by the parent")
    p2.recv()


@case(LISTEN)
def listener_of_a_closed_parent(t: T) -> None:
    listener, address = t.listener()
    gate = t.gate()

    def child() -> None:
        gate.wait()
        listener.accept().send(b"served by the child")

    running = t.fork(child)
    listener.close()
    p = t.dial(address)
    gate.open()
    p.recv()
    running.join()
    t.socket("p2", end=t.peer).connect(address)


@case(LISTEN)
def prefork_two_children(t: T) -> None:
    listener, address = t.listener()
    children = [t.fork(lambda: listener.accept().send(b"served")) for _ in range(2)]
    for number in range(2):
        p = t.dial(address, label=f"p{number}")
        p.recv()
        p.wait(RDHUP)
    for running in children:
        running.join()


@case(LISTEN)
def accept_fork_close_in_parent(t: T) -> None:
    listener, address = t.listener()
    for number in range(3):
        p = t.dial(address, label=f"p{number}")
        a = t.accepted(listener, "a")
        running = t.fork(lambda a=a: [a.recv(), a.send(b"answer"), a.close()])  # type: ignore[misc]
        a.close()
        p.send(b"question")
        p.recv()
        running.join()
        p.wait(RDHUP)


@case(DIAL)
def child_connects(t: T) -> None:
    listener, address = t.listener(end=t.peer)

    def child() -> None:
        s = t.socket()
        s.connect(address)
        s.send(b"hello")
        s.recv()

    running = t.fork(child)
    p = t.accepted(listener, "p")
    p.recv()
    p.send(b"hi")
    running.join()
    p.wait(RDHUP)


@case()
def epoll_set_after_fork(t: T) -> None:
    s, p = t.pair()
    ep = t.epoll()
    ep.add(s, IN)
    p.send(b"x")
    s.queued(1)
    t.fork(lambda: ep.now()).join()
    ep.now()


@case()
def epoll_set_made_in_child(t: T) -> None:
    s, p = t.pair()

    def child() -> None:
        ep = t.epoll()
        ep.add(s, IN | OUT)
        ep.now()

    p.send(b"x")
    s.queued(1)
    t.fork(child).join()


@case()
def poll_in_child(t: T) -> None:
    s, p = t.pair()
    running = t.fork(lambda: t.poll([(s, IN)], 2000))
    p.send(b"x")
    running.join()
    s.poll()


_SCRIPT = """
import os, socket, sys
fd = int(sys.argv[1])
try:
    s = socket.socket(fileno=fd)
    s.sendall(b"after exec ")
    print("received", s.recv(100).decode(), flush=True)
    s.close()
except OSError as error:
    print("errno", error.errno, flush=True)
"""


def _exec(t: T, fd: int, **how: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(fd)],
        capture_output=True,
        timeout=8,
        text=True,
        close_fds=False,
        **how,  # type: ignore[call-overload]
    )
    t.note("program", done.stdout.strip() + done.stderr.strip()[-200:])


@case()
def exec_inherits(t: T) -> None:
    s, p = t.pair()
    os.set_inheritable(s.fd, True)
    p.send(b"hello")
    _exec(t, s.fd)
    p.recv()
    s.send(b"and the parent")
    p.recv()


@case()
def exec_does_not_inherit_cloexec(t: T) -> None:
    s, p = t.pair()
    s.fcntl(2, 1, "F_SETFD CLOEXEC")
    _exec(t, s.fd)
    s.send(b"parent")
    p.recv()


@case()
def exec_keeps_the_connection_when_the_parent_closes(t: T) -> None:
    s, p = t.pair()
    os.set_inheritable(s.fd, True)
    child = subprocess.Popen([sys.executable, "-c", _SCRIPT, str(s.fd)], stdout=subprocess.PIPE, close_fds=False)
    s.close()
    p.recv()
    p.send(b"still there")
    t.note("program", child.communicate(timeout=8)[0])
    p.wait(RDHUP)


@case()
def exec_closing_descriptors(t: T) -> None:
    s, p = t.pair()
    done = subprocess.run([sys.executable, "-c", "print('fine')"], capture_output=True, timeout=8, close_fds=True)
    t.note("program", done.stdout)
    s.send(b"x")
    p.recv()


@case()
def posix_spawn_as_stdio(t: T) -> None:
    s, p = t.pair()
    p.send(b"hello")
    s.queued(5)
    actions = [(os.POSIX_SPAWN_DUP2, s.fd, 0), (os.POSIX_SPAWN_DUP2, s.fd, 1)]
    pid = os.posix_spawn("/usr/bin/head", ["head", "-c", "5"], os.environ, file_actions=actions)
    t.note("status", os.waitpid(pid, 0)[1])
    p.recv()


@case()
def shell_reads_and_writes_as_stdio(t: T) -> None:
    s, p = t.pair()
    child = subprocess.Popen(["/bin/sh", "-c", "read line; echo got $line"], stdin=s.fd, stdout=s.fd)
    p.send(b"a line\n")
    p.recv()
    t.note("status", child.wait(8))
    s.close()
    p.wait(RDHUP)


@case(LISTEN)
def exec_inherits_listener(t: T) -> None:
    listener, address = t.listener()
    os.set_inheritable(listener.fd, True)
    script = (
        "import socket, sys\nl = socket.socket(fileno=int(sys.argv[1]))\nprint('ready', flush=True)\n"
        "a, _ = l.accept()\na.sendall(b'served after exec')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(listener.fd)], stdout=subprocess.PIPE, close_fds=False)
    assert child.stdout
    t.note("program", child.stdout.readline())
    listener.close()
    p = t.dial(address)
    p.recv()
    t.note("status", child.wait(8))
    child.stdout.close()


@case(PAIR)
def many_children_in_turn(t: T) -> None:
    s, p = t.pair()
    for number in range(12):
        t.fork(lambda number=number: s.send(b"%d." % number)).join()  # type: ignore[misc]
    p.queued(26)
    p.recv()


@case()
def two_processes_write_one_connection(t: T) -> None:
    s, p = t.pair()

    def writer(letter: bytes) -> None:
        for _ in range(300):
            s.quietly("send", letter * 1000)

    writers = [t.fork(lambda: writer(b"a")), t.fork(lambda: writer(b"b"))]
    got = b""
    while len(got) < 600_000:
        got += p.quietly("recv", 65536)
    for running in writers:
        running.join()
    t.note("whole", got.count(b"a") == got.count(b"b") == 300_000)
