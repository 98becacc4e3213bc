# SPDX-License-Identifier: MulanPSL-2.0
"""SYN cookies: a listener serves on through a flood of SYNs, and a flood of ACKs opens nothing.

Topology, with one worker or two:

syn_flood (packet socket) ---+
                             |
kernel client ---------- gz-tap ---- worker.0 [worker.1] ---- echo_server
10.91.0.1, fd00:91::1                10.91.0.2, fd00:91::2
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kit.instance import Instance, on_tap
from kit.lab import Kit, Process, compiled
from kit.waiting import until

HALF_OPEN_MAX = 1023  # of a worker, see syncookie.c
ECHO = Path(__file__).with_name("echo_server.py")
FLOOD = Path(__file__).with_name("syn_flood.c")
PORT = 7000
# Of the stack, of the client, and of the flood: from beyond the gateway, or from addresses that would be neighbours.
FAMILIES = {"ipv4": ("10.91.0.2", "10.91.0.1", "198.18.0.0"), "ipv6": ("fd00:91::2", "fd00:91::1", "2001:db8::1:0")}
FLOODS = {**FAMILIES, "ipv6 on-link": ("fd00:91::2", "fd00:91::1", "fd00:91::1:0")}

# Connects until its input ends: how long each took, and what each has agreed on.
CLIENT = """
import json, os, select, socket, struct, sys, time
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
took, agreed = [], set()
while not select.select([sys.stdin], [], [], 0.01)[0] or len(took) < 20:
    started = time.monotonic()
    with socket.create_connection((address, port), 20) as s:
        took.append(time.monotonic() - started)
        info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
        agreed.add((info[5] & 7, info[6] & 15))  # TCPI_OPT_*, and how the other side scales its windows
        data, back = os.urandom(20000), b""
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        while piece := s.recv(65536):
            back += piece
        assert back == data
print(json.dumps({"took": took, "agreed": sorted(agreed)}))
"""


def _counted(instance: Instance, counter: str) -> int:
    return sum(instance.page(row["queue_id"]).counters()[counter] for row in instance.status()["workers"])


def _serving(kit: Kit, workers: int, address: str) -> Instance:
    instance = on_tap(kit, workers, ipv6=True, routed=True)
    instance.start()
    server = instance.spawn(sys.executable, str(ECHO), address, str(PORT))
    server.said("serving")
    instance.client.run(sys.executable, "-c", f"import socket; socket.create_connection(('{address}', {PORT}), 5)")
    return instance


def _flood(kit: Kit, instance: Instance, program: Path, kind: str, family: str, count: int) -> Process:
    address, _, sources = FLOODS[family]
    words = [line.split() for line in instance.client.run("ip", "neigh").splitlines()]
    mac = next(line[line.index("lladdr") + 1] for line in words if line[0] == address)
    return kit.spawn(instance.client, str(program), kind, instance.device, mac, sources, address, str(PORT), str(count))


@pytest.mark.parametrize(
    ("family", "workers"), [("ipv4", 1), ("ipv4", 2), ("ipv6", 1), ("ipv6", 2), ("ipv6 on-link", 1)]
)
def test_a_listener_serves_on_through_a_flood_of_syns(kit: Kit, family: str, workers: int) -> None:
    address = FLOODS[family][0]
    instance = _serving(kit, workers, address)
    program = compiled(FLOOD, kit.directory)
    filled = _flood(kit, instance, program, "syn", family, 4 * workers * HALF_OPEN_MAX)
    filled.wait(30)
    until(lambda: _counted(instance, "syncookies_sent") >= HALF_OPEN_MAX, "cookies to be sent")
    accepted, opened = (_counted(instance, name) for name in ("accepted", "connections"))

    flood = _flood(kit, instance, program, "syn", family, 100_000)
    client = instance.client.argv(sys.executable, "-c", CLIENT, address, str(PORT))
    said = _run_until_over(client, flood)

    took = said["took"]
    assert statistics.median(took) < 0.05, sorted(took)
    assert max(took) < 2.5, "a SYN was lost more than once: in the tap's full queue, where nobody can save it"
    assert _counted(instance, "alloc_failed") == 0, "the worker had room for every frame"
    assert said["agreed"] == [[7, 5]], "timestamps, SACK and window scale of 5, by cookies as well"
    assert _counted(instance, "syncookies_accepted") > 0
    assert _counted(instance, "accepted") - accepted == len(took)
    assert _counted(instance, "syncookies_failed") == 0
    until(lambda: _counted(instance, "connections") <= opened, "the connections to end")
    instance.stop()


def _run_until_over(client: list[str], flood: Process) -> dict[str, list[Any]]:
    with subprocess.Popen(
        client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        flood.wait(60)
        out, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    said: dict[str, list[Any]] = json.loads(out)
    return said


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flood_of_acknowledgments_opens_nothing(kit: Kit, family: str) -> None:
    address = FAMILIES[family][0]
    instance = _serving(kit, 1, address)
    program = compiled(FLOOD, kit.directory)
    _flood(kit, instance, program, "syn", family, 4 * HALF_OPEN_MAX).wait(30)
    accepted = _counted(instance, "accepted")
    _flood(kit, instance, program, "ack", family, 20_000).wait(30)
    until(lambda: _counted(instance, "syncookies_failed") >= 19_000, "the last ACK")
    assert _counted(instance, "accepted") == accepted
    assert _counted(instance, "syncookies_accepted") == 0
    instance.stop()
