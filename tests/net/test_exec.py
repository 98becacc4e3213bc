# SPDX-License-Identifier: MulanPSL-2.0
"""Programs that start others with a connection as their input and output: inetd, CGI, shells.

kernel client ---- tap ---- stack: super-server, which forks and execs for each connection
attached client --- pair ----------^
"""

from __future__ import annotations

import sys

import pytest

from net.instance import Instance, on_tap
from net.kit import Kit, until

PORT = 7007

SERVER = """
import os, socket, subprocess, sys
how, command = sys.argv[2], sys.argv[3:]
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", int(sys.argv[1])))
listener.listen()
while True:
    connection, _ = listener.accept()
    fd = connection.fileno()
    if how == "spawn":
        actions = [(os.POSIX_SPAWN_DUP2, fd, 0), (os.POSIX_SPAWN_DUP2, fd, 1)]
        os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    else:
        subprocess.Popen(command, stdin=fd, stdout=fd)
    connection.close()
"""

CLIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
s.settimeout(10)
s.sendall(b"one line\\n")
s.shutdown(socket.SHUT_WR)
said = b""
while part := s.recv(100):
    said += part
print(said.decode(), end="")
"""


def serve(instance: Instance, how: str, *command: str) -> None:
    argv = [sys.executable, "-c", SERVER, str(PORT), how, *command]
    instance.spawn(*argv)
    until(lambda: any(app["sockets"] for app in instance.status()["applications"]), "the super-server listens")


@pytest.mark.parametrize("how", ["spawn", "fork"])
@pytest.mark.parametrize("attached", [False, True], ids=["wire", "pair"])
def test_a_program_talks_through_the_connection_it_was_started_with(kit: Kit, how: str, attached: bool) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    serve(instance, how, "sh", "-c", "read line; cat; echo got $line")
    client = [sys.executable, "-c", CLIENT, instance.address, str(PORT)]
    for _ in range(3):
        said = instance.client.run(*(instance.attached(*client) if attached else client))
        assert said == "got one line\n"
    # The end of the connection came with the end of the program: the server holds nothing but its listener.
    until(
        lambda: sum(app["sockets"] for app in instance.status()["applications"]) == 1,
        "what the programs held is released",
    )
    instance.stop()
