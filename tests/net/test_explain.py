# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled run --explain` counts every socket of a program once, its children's included.

              namespace S
plain peers          program
  |      |             | liblstack
  |   loopback --------+
kernel ---- tap ---- stack
"""

from __future__ import annotations

import re
import sys

from kit.instance import Instance, started
from kit.lab import Kit

# One of each: what it does is what must be counted.
PROGRAM = """
import os, socket, sys
stack, peer, served = sys.argv[1], sys.argv[2], int(sys.argv[3])
def listener(address):
    return socket.create_server((address, 0), reuse_port=False)
wire, everywhere = listener(stack), listener("0.0.0.0")
socket.create_connection((peer, served))                       # made by a worker
alone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
alone.bind((stack, 0))                                         # a datagram socket
other = socket.socket()
try:
    other.connect(("127.0.0.1", 1))                            # nobody attached listens there: the kernel's
except ConnectionRefusedError:
    pass
if os.fork() == 0:
    with socket.create_connection((stack, wire.getsockname()[1])) as near:  # the same host, this end
        near.recv(1)
    os._exit(0)
wire.accept()[0].send(b"x")                                    # the same host, that end
os.wait()
print("ports", wire.getsockname()[1], everywhere.getsockname()[1], flush=True)
wire.accept()                                                  # accepted by a worker
everywhere.accept()                                            # on loopback, of a plain client
socket.socketpair()
"""
LISTENER = """
import signal, socket, sys
server = socket.create_server((sys.argv[1], 7777))
print("on", flush=True)
signal.pause()
"""
CLIENT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])))
socket.create_connection(("127.0.0.1", int(sys.argv[3])))
"""


def explained(instance: Instance, *command: str) -> list[str]:
    return instance.argv("run", "--explain", "--", *command)


def test_every_socket_is_counted_once(kit: Kit) -> None:
    instance = started(kit, "tap", 1)
    listening = kit.spawn(instance.client, sys.executable, "-c", LISTENER, instance.peer)
    listening.said("on")
    program = kit.spawn(
        instance.home, *explained(instance, sys.executable, "-c", PROGRAM, instance.address, instance.peer, "7777")
    )
    program.said("ports")
    ports = re.search(r"ports (\d+) (\d+)", program.output())
    assert ports is not None
    instance.client.run(sys.executable, "-c", CLIENT, instance.address, *ports.groups())
    assert program.wait(20) == 0, program.output()
    said = program.output().split("gazelled: sockets of ")[1].splitlines()[1:]
    counts = {line.split(maxsplit=1)[1].split(";")[0]: int(line.split()[0]) for line in said}
    assert counts == {
        "on the stack": 7,
        "TCP connections accepted": 1,
        "TCP connections made": 1,
        "TCP connections with attached programs of this host": 2,
        "TCP listeners": 2,
        "UDP sockets": 1,
        "on the kernel": 2,
        "on loopback, where no attached program listens": 1,
        "accepted from plain clients on loopback or at the host's own addresses": 1,
    }


def test_a_program_without_sockets_and_its_status(kit: Kit) -> None:
    instance = started(kit, "tap", 1)
    done = instance.home.try_run(*explained(instance, "sh", "-c", "exit 3"))
    assert done.returncode == 3
    assert "none that TCP or UDP could use" in done.stderr


# What the stack cannot keep. A listener with one of these is the kernel's alone, as is a connection.
PROMISES = """
import ctypes, socket, struct, sys
IP = socket.IPPROTO_IP
code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))  # takes all
program = struct.pack("@HP", 1, ctypes.addressof(code))
kept = [
    (socket.SOL_SOCKET, 36, 7),                          # SO_MARK
    (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo"),
    (socket.SOL_SOCKET, 26, program),                    # SO_ATTACH_FILTER
    (IP, 21, 255),                                       # IP_MINTTL
]
hints = [(socket.SOL_SOCKET, 36, 0), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (IP, 24, 1)]
held = []
for option in kept + hints:
    held.append(socket.socket())
    held[-1].setsockopt(*option)
served = socket.create_server((sys.argv[1], 0))
try:
    served.setsockopt(socket.SOL_SOCKET, 36, 7)
    print("late")
except OSError as error:
    print("refused", error.errno)
"""


def test_a_promise_only_the_kernel_keeps_makes_a_socket_the_kernels(kit: Kit) -> None:
    instance = started(kit, "tap", 1)
    program = kit.spawn(instance.home, *explained(instance, sys.executable, "-c", PROMISES, instance.address))
    assert program.wait(20) == 0, program.output()
    assert "refused 92" in program.output()  # ENOPROTOOPT
    assert re.search(r"\b4\b.*with an option that the stack does not have", program.output()), program.output()
    instance.stop()
