# SPDX-License-Identifier: MulanPSL-2.0
"""A program that receives forged sockets from strangers gets none of its own sockets by them, and outlives them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kit.instance import Instance, on_nothing
from kit.lab import Kit, compiled
from kit.waiting import until

PORT = "7310"
NATIVE = Path(__file__).parents[2] / "native"

# Serves TCP, and takes descriptors from whoever comes by a UNIX socket; tells of each that it is given one.
SERVER = r"""
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
way = socket.socket(socket.AF_UNIX)
way.bind("\0" + sys.argv[3])
way.listen()
print("ready", flush=True)
client, _ = listener.accept()
forged = 0
while True:
    stranger, _ = way.accept()
    with stranger:
        data, rights, _, _ = socket.recv_fds(stranger, 10, 4)
        if rights:
            print("was given", socket.socket(fileno=rights[0]), flush=True)
        if data == b"e":
            break
        forged += 1
        stranger.send(b"y")
client.sendall(b"to my client alone")
client.close()
another, _ = listener.accept()
another.sendall(b"still here")
another.close()
print("forged", forged, flush=True)
"""

CLIENT = """
import socket, sys
first = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
print("connected", flush=True)
print(first.recv(100), flush=True)
print(first.recv(100), flush=True)
print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).recv(100), flush=True)
"""

END = r"""
import socket, sys
way = socket.socket(socket.AF_UNIX)
way.connect("\0" + sys.argv[1])
way.send(b"e")
"""


@pytest.fixture
def instance(kit: Kit) -> Instance:
    made = on_nothing(kit, 2)
    made.start()
    return made


def test_a_forged_socket_brings_nothing(kit: Kit, instance: Instance) -> None:
    program = compiled(
        Path(__file__).with_name("forged_socket.c"),
        kit.directory,
        "-D_GNU_SOURCE",
        f"-I{NATIVE / 'include'}",
        f"-I{NATIVE / 'shim'}",
    )
    way = f"{instance.name}-way"
    server = kit.spawn(instance.home, *instance.attached(sys.executable, "-c", SERVER, instance.address, PORT, way))
    until(lambda: "ready" in server.output(), "the server to listen")
    client = kit.spawn(instance.home, *instance.attached(sys.executable, "-c", CLIENT, instance.address, PORT))
    until(lambda: "connected" in client.output(), "the client to connect")
    assert "all sent" in instance.home.run(str(program), way)
    instance.home.run(sys.executable, "-c", END, way)
    assert server.wait(10) == 0, server.output()
    assert client.wait(10) == 0, client.output()
    assert "was given" not in server.output()
    assert "forged 193" in server.output()
    assert client.output().split("\n")[1:4] == ["b'to my client alone'", "b''", "b'still here'"]
