# SPDX-License-Identifier: MulanPSL-2.0
"""Children that are made past the C library, that give up their rights, or that are handed sockets after an exec.

   namespace S                      namespace C
program and children           clients on the kernel
     | liblstack                       |
   stack -------------- tap -----------+
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.instance import Instance, started
from kit.lab import Kit, compiled

# The parent sends each socket to a child that was executed before there was one, as the cluster module of node does.
PARENT = """
import socket, subprocess, sys
address, port = sys.argv[1], int(sys.argv[2])
ours, theirs = socket.socketpair()
child = subprocess.Popen([sys.executable, "-c", CHILD], pass_fds=[theirs.fileno()], stdin=theirs)
theirs.close()
assert ours.recv(16) == b"begun"
def send(kind, each):
    socket.send_fds(ours, [kind], [each.fileno()])
    assert ours.recv(16) == b"taken"
    each.close()
listener = socket.create_server((address, port))
bound = socket.socket()
bound.bind((address, port + 1))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((address, port + 2))
print("ready", flush=True)
accepted, _ = listener.accept()
for kind, each in ((b"stream", accepted), (b"listener", listener), (b"bound", bound), (b"udp", udp)):
    send(kind, each)
print("sent", flush=True)
sys.exit(child.wait())
"""
CHILD = """
import socket
channel = socket.socket(fileno=0)
channel.send(b"begun")
taken = []
for _ in range(4):
    kind, (fd,), flags, _ = socket.recv_fds(channel, 16, 1)
    each = socket.socket(fileno=fd)
    if kind == b"bound":
        each.listen()
    taken.append((kind, each))
    channel.send(b"taken")
for kind, each in taken:
    if kind == b"udp":
        data, peer = each.recvfrom(16)
        each.sendto(b"udp " + data, peer)
        continue
    if kind != b"stream":
        each, _ = each.accept()
    each.send(kind + b" " + each.recv(16))
"""
ASK = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
first = socket.create_connection((address, port), 10)
first.settimeout(10)
first.send(b"one")
print(first.recv(64).decode())
for each in port, port + 1:
    with socket.create_connection((address, each), 10) as connection:
        connection.send(b"two")
        print(connection.recv(64).decode())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.settimeout(10)
    udp.sendto(b"three", (address, port + 2))
    print(udp.recv(64).decode())
"""
TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    connection.settimeout(10)
    for each in (b"x", b"y" * 3000, b"z"):
        connection.sendall(each)
        got = b""
        while len(got) < len(each):
            got += connection.recv(4096) or sys.exit("closed")
        assert got == each
print("told back")
"""

# A child with an epoll set for each connection.
FORKING = """
import os, select, signal, socket, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=512)
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    if os.fork() == 0:
        listener.close()
        connection.setblocking(False)
        poll = select.epoll()
        poll.register(connection, select.EPOLLIN)
        while poll.poll():
            data = connection.recv(100)
            if not data:
                os._exit(0)
            connection.send(data)
    connection.close()
"""
MANY = """
import socket, sys
connections = []
for _ in range(150):
    connections.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10))
    connections[-1].settimeout(10)
    connections[-1].send(b"first")
    assert connections[-1].recv(100) == b"first"
for each in connections:
    each.send(b"again")
    assert each.recv(100) == b"again"
print("all served")
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    kit = Kit(tmp_path_factory.mktemp("children"))
    try:
        instance = started(kit, "tap", 1)
        yield instance
        instance.stop()
    finally:
        kit.close()


def test_a_child_that_gives_up_its_rights(instance: Instance, tmp_path: Path) -> None:
    program = compiled(Path(__file__).parent / "confined.c", tmp_path)
    server = instance.spawn(str(program), instance.address, "7200")
    server.said("ready")
    on_stack = instance.attached(sys.executable, "-c", TALK, instance.address, "7200")
    for _ in range(2):
        assert "told back" in instance.client.run(sys.executable, "-c", TALK, instance.address, "7200")
        assert "told back" in instance.home.run(*on_stack)
    server.kill()


@pytest.mark.parametrize("attached", [False, True], ids=["wire", "same-host"])
def test_sockets_for_a_child_after_its_exec(instance: Instance, attached: bool) -> None:
    port = 7210 + 10 * attached
    script = f"CHILD = {CHILD!r}\n{PARENT}"
    server = instance.spawn(sys.executable, "-c", script, instance.address, str(port))
    server.said("ready")
    ask = [sys.executable, "-c", ASK, instance.address, str(port)]
    said = instance.home.run(*instance.attached(*ask)) if attached else instance.client.run(*ask)
    assert said.splitlines()[-4:] == ["stream one", "listener two", "bound two", "udp three"]
    assert server.wait(10) == 0, server.output()


def test_more_children_than_a_pair_has_event_queues(instance: Instance) -> None:
    server = instance.spawn(sys.executable, "-c", FORKING, instance.address, "7230")
    server.said("ready")
    said = instance.home.run(*instance.attached(sys.executable, "-c", MANY, instance.address, "7230"))
    assert "all served" in said
    server.kill_group()
