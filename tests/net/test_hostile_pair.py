# SPDX-License-Identifier: MulanPSL-2.0
"""The other program of a pair may do as it likes: a program loses the connections it has with that one, no more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kit.instance import Instance, on_nothing
from kit.lab import Kit, compiled
from kit.waiting import until

PORT, OTHER_PORT = "7300", "7301"
ROUNDS = 8
_VICTIM_S = 20

# Echoes to all at once, and tells of every connection that ended.
SERVER = """
import select, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=64)
sockets = {listener.fileno(): listener}
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN)
print("ready", flush=True)
while True:
    for fd, _ in epoll.poll():
        if fd == listener.fileno():
            connection, _ = listener.accept()
            connection.setblocking(False)
            sockets[connection.fileno()] = connection
            epoll.register(connection, select.EPOLLIN)
            continue
        try:
            data = sockets[fd].recv(65536)
            if data and sockets[fd].send(data):
                continue
        except BlockingIOError:
            continue
        except OSError:
            pass
        epoll.unregister(fd)
        sockets.pop(fd).close()
"""

# Speaks to a good server all the time, and in between to the bad one.
CLIENT = """
import socket, sys
good = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
for number in range(int(sys.argv[4])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[3])), 1) as bad:
            bad.sendall(b"hello")
            bad.recv(100)
    except OSError:
        pass
    good.sendall(b"%d" % number)
    assert good.recv(100) == b"%d" % number
print("done", flush=True)
"""


@pytest.fixture
def instance(kit: Kit) -> Instance:
    made = on_nothing(kit, 1)
    made.start()
    return made


@pytest.fixture
def program(kit: Kit) -> Path:
    return compiled(Path(__file__).with_name("hostile_pair.c"), kit.directory)


def test_a_server_outlives_its_clients_nonsense(kit: Kit, instance: Instance, program: Path) -> None:
    server = kit.spawn(instance.home, *instance.attached(sys.executable, "-c", SERVER, instance.address, PORT))
    until(lambda: "ready" in server.output(), "the server to listen")
    for _ in range(ROUNDS):
        instance.home.run(*instance.attached(str(program), "connect", instance.address, PORT))
        asked = instance.attached(sys.executable, "-c", CLIENT, instance.address, PORT, PORT, "3")
        assert "done" in instance.home.run(*asked, timeout=_VICTIM_S)
        assert server.alive, server.output()
    instance.stop()


def test_a_client_outlives_its_servers_nonsense(kit: Kit, instance: Instance, program: Path) -> None:
    server = kit.spawn(instance.home, *instance.attached(sys.executable, "-c", SERVER, instance.address, PORT))
    hostile = kit.spawn(instance.home, *instance.attached(str(program), "listen", instance.address, OTHER_PORT))
    until(lambda: "ready" in server.output() and "ready" in hostile.output(), "the servers to listen")
    asked = instance.attached(sys.executable, "-c", CLIENT, instance.address, PORT, OTHER_PORT, str(ROUNDS))
    assert "done" in instance.home.run(*asked, timeout=_VICTIM_S), hostile.output()
    assert server.alive
    instance.stop()
