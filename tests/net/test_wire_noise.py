# SPDX-License-Identifier: MulanPSL-2.0
"""Frames no kernel sends, by the thousand, into a running instance: nobody dies, no byte is wrong, no mbuf is missing.

wire_noise (packet socket) ----+
                               |
kernel clients ----------- gz-tap ---- worker.0 [worker.1] ---- echo servers: 7000 is aimed at, 7001 is not
10.91.0.1, fd00:91::1                  10.91.0.2, fd00:91::2

`make noise FRAMES=1000000` sends a million of each kind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit, compiled
from kit.waiting import until

FRAMES = int(os.environ.get("NOISE_FRAMES", "20000"))
SEED = int(os.environ.get("NOISE_SEED", "1"))
KINDS = ("tcp", "fragments", "icmp", "neighbours", "ethernet")
AIM, SAFE = 7000, 7001
ADDRESSES = ("10.91.0.2", "fd00:91::2")
ECHO = Path(__file__).with_name("echo_server.py")
NOISE = Path(__file__).with_name("wire_noise.c")

# Talks to the port that is aimed at, over and over: its connections may be reset at any moment.
VICTIMS = """
import socket, sys, threading
def talk(address, port):
    while True:
        try:
            with socket.create_connection((address, port), 2) as s:
                for size in (1, 100, 4000, 20000):
                    s.sendall(b"v" * size)
                    while size > 0 and (got := s.recv(65536)):
                        size -= len(got)
        except OSError:
            pass
for address in sys.argv[2:] * 2:
    threading.Thread(target=talk, args=(address, int(sys.argv[1])), daemon=True).start()
threading.Event().wait()
"""

# Sends random bytes to the other port and compares what comes back, on connections that must last.
TRANSFER = """
import os, select, socket, sys
connections = [socket.create_connection((address, int(sys.argv[1])), 60) for address in sys.argv[2:]]
done = 0
while not select.select([sys.stdin], [], [], 0)[0] or not done:
    data = os.urandom(40000)
    for s in connections:
        s.sendall(data)
    for s in connections:
        back = b""
        while len(back) < len(data):
            piece = s.recv(65536)
            assert piece, "the connection was closed"
            back += piece
        assert back == data, "wrong bytes"
    done += len(data) * len(connections)
print(done)
"""


def _mac(instance: Instance) -> str:
    words = [line.split() for line in instance.client.run("ip", "neigh").splitlines()]
    return next(line[line.index("lladdr") + 1] for line in words if line[0] == ADDRESSES[0])


@pytest.mark.parametrize(("kind", "workers"), [*((kind, 1) for kind in KINDS), ("tcp", 2)])
def test_noise_on_the_wire_ends_nobody_and_changes_nothing(kit: Kit, kind: str, workers: int) -> None:
    instance = on_tap(kit, workers, ipv6=True)
    instance.start()
    for port in (AIM, SAFE):
        for address in ADDRESSES:
            instance.spawn(sys.executable, str(ECHO), address, str(port)).said("serving")
    program = compiled(NOISE, kit.directory)
    for address in ADDRESSES:
        instance.client.run(sys.executable, "-c", f"import socket; socket.create_connection(('{address}', {SAFE}), 5)")
    mac = _mac(instance)
    pids = [row["pid"] for row in instance.status()["workers"]]
    pages = [instance.page(queue) for queue in range(workers)]
    until(lambda: all(page.counters()["mbufs_free"] for page in pages), "the worker's first count")
    free = [page.counters()["mbufs_free"] for page in pages]

    victims = kit.spawn(instance.client, sys.executable, "-c", VICTIMS, str(AIM), *ADDRESSES)
    argv = instance.client.argv(sys.executable, "-c", TRANSFER, str(SAFE), *ADDRESSES)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as transfer:
        instance.client.run(
            str(program), kind, instance.device, mac, str(AIM), str(SEED), str(FRAMES), timeout=60 + FRAMES / 2000
        )
        out, err = transfer.communicate(timeout=120)
    assert transfer.returncode == 0, f"{kind}: {err.decode()}{instance.logs()}"
    assert int(out) > 0
    victims.kill()
    rows = instance.status()["workers"]
    assert [row["pid"] for row in rows] == pids, f"{kind}: a worker has died{instance.logs()}"
    # Fragments wait for half a minute, connections whose peer is gone somewhat longer.
    until(lambda: [page.counters()["mbufs_free"] for page in pages] >= free, "all buffers to be back", 120)
    instance.stop()
