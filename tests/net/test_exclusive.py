# SPDX-License-Identifier: MulanPSL-2.0
"""
A pre-fork server: four children wait in epoll for one listener on the stack, a client on the kernel's side of the tap
connects. With EPOLLEXCLUSIVE a connection wakes one of them, and all have their turn; without it all are woken.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from kit.instance import started
from kit.lab import Kit, Process
from kit.waiting import until

SERVER = str(Path(__file__).with_name("prefork_accept.py"))
CLIENT = "import socket, sys; print(socket.create_connection((sys.argv[1], 7300), 5).recv(100).decode())"
CHILDREN = 4
CONNECTIONS = 12


def _waiting(server: Process) -> list[int]:
    return [int(pid) for pid in re.findall(r"waits (\d+)", server.output())]


def _asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("how", ["exclusive", "shared"])
def test_how_many_a_connection_wakes(kit: Kit, how: str) -> None:
    instance = started(kit, "tap", 1)
    server = instance.spawn(sys.executable, SERVER, instance.address, "7300", str(CHILDREN), how)
    until(lambda: len(_waiting(server)) == CHILDREN, "the children to wait")
    children = _waiting(server)
    served, woken = [], 0
    for _ in range(CONNECTIONS):
        until(lambda: all(map(_asleep, children)), "the children to sleep")
        before = instance.page(0).counters()["wakeups_written"]
        served.append(int(instance.client.run(sys.executable, "-c", CLIENT, instance.address)))
        woken += instance.page(0).counters()["wakeups_written"] - before
    if how == "exclusive":
        assert woken < 2 * CONNECTIONS
        assert set(served) == set(children)
    else:
        assert woken > 2 * CONNECTIONS
