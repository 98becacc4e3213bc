# SPDX-License-Identifier: MulanPSL-2.0
"""Programs that start others with a connection as their input and output: inetd, CGI, shells.

kernel client ---- tap ---- stack: super-server, which forks and execs for each connection
attached client --- pair ----------^
"""

from __future__ import annotations

import sys

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit
from kit.waiting import until

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


BEFORE = """
import os, socket, sys
u = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
u.bind((sys.argv[1], 5300))
data, peer = u.recvfrom(100)
u.sendto(b"before " + data, peer)
os.dup2(u.fileno(), 0)
print("ready", flush=True)
data, peer = u.recvfrom(100, socket.MSG_PEEK)
os.execvp(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""
AFTER = """
import select, socket
u = socket.socket(fileno=0)
print(u.getsockname()[1], flush=True)
for _ in range(2):
    while not select.select([u], [], [], 5)[0]:
        pass
    data, peer = u.recvfrom(100)
    u.sendto(b"after " + data, peer)
"""
ASKER = """
import socket, sys
c = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
c.settimeout(0.2)
c.connect((sys.argv[1], 5300))
for word in ("before", "after", "after"):
    for _ in range(50):
        c.send(b"question")
        try:
            said = c.recv(100)
        except (TimeoutError, ConnectionRefusedError):
            continue
        if word == "after" and said.startswith(b"before"):
            continue
        break
    assert said == word.encode() + b" question", (word, said)
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("address", ["10.91.0.2", "fd00:91::2", "0.0.0.0"])
def test_a_socket_of_datagrams_goes_on_in_the_new_program(kit: Kit, workers: int, address: str) -> None:
    instance = on_tap(kit, workers, ipv6=True)
    instance.start()
    process = instance.spawn(sys.executable, "-c", BEFORE, address, AFTER)
    reach = "10.91.0.2" if address == "0.0.0.0" else address
    until(lambda: any(app["sockets"] for app in instance.status()["applications"]), "it is bound")
    instance.client.run(sys.executable, "-c", ASKER, reach)
    process.said("5300")
    instance.stop()
