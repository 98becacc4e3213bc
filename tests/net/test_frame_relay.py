# SPDX-License-Identifier: MulanPSL-2.0
"""The bad cable of the test kit is bad by exactly as much as it was told.

  namespace A          namespace M            namespace B
+-------------+    +-----------------+    +-------------+
| 10.77.0.1 a |----| ma  relay    mb |----| b 10.77.0.2 |
+-------------+    +-----------------+    +-------------+
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Sends the wanted number of bytes of a known pattern, the receiver prints their count and SHA-256.
RECEIVE = """
import hashlib, socket
server = socket.create_server(("10.77.0.2", 7700))
print("listening", flush=True)
server.settimeout(30)
peer, _ = server.accept()
peer.settimeout(60)
count, digest = 0, hashlib.sha256()
while data := peer.recv(1 << 20):
    count += len(data)
    digest.update(data)
print(count, digest.hexdigest(), flush=True)
"""
SEND = """
import socket, sys
block, blocks = bytes(range(256)) * 256, int(sys.argv[1])
peer = socket.create_connection(("10.77.0.2", 7700), timeout=60)
for number in range(blocks):
    peer.sendall(number.to_bytes(8, "big") + block)
peer.shutdown(socket.SHUT_WR)
peer.recv(1)
"""
BLOCK = bytes(range(256)) * 256

# Prints the numbers of the datagrams that came, in their order, until none has come for half a second.
RECEIVE_DATAGRAMS = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE: room for all of them
server.bind(("10.77.0.2", 7700))
print("listening", flush=True)
server.settimeout(10)
numbers = []
try:
    while True:
        numbers.append(int(server.recv(100)))
        server.settimeout(0.5)
except TimeoutError:
    print(numbers, flush=True)
"""
SEND_DATAGRAMS = """
import socket
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(500):
    peer.sendto(b"%d" % number, ("10.77.0.2", 7700))
"""


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def inside(namespace: str, *argv: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *argv]


@dataclass
class Cable:
    """The three namespaces, and the relay in the middle one."""

    a: str
    m: str
    b: str
    program: str

    def relay(self, *options: str) -> subprocess.Popen[str]:
        """Start a relay and return it once it relays."""
        argv = inside(self.m, self.program, "--a", "ma", "--b", "mb", "--seconds", "100", *options)
        relay = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert relay.stderr is not None
        assert relay.stderr.readline() == "relaying ma <-> mb\n"
        return relay

    def listen(self, program: str) -> subprocess.Popen[str]:
        """Start a Python program in namespace B and return it once it listens."""
        server = subprocess.Popen(inside(self.b, sys.executable, "-c", program), stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        return server

    def send(self, program: str, *arguments: str) -> None:
        """Run a Python program in namespace A to its end."""
        subprocess.run(inside(self.a, sys.executable, "-c", program, *arguments), check=True, timeout=90)


def stop(relay: subprocess.Popen[str]) -> dict[str, Any]:
    """End a relay by SIGTERM and return what it counted."""
    relay.send_signal(signal.SIGTERM)
    out, _ = relay.communicate(timeout=10)
    assert relay.returncode == 0
    counted: dict[str, Any] = json.loads(out)
    return counted


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the relay the build made, or make one."""
    native = Path(os.environ.get("GAZELLED_NATIVE", REPOSITORY / "build"))
    built = native / "tests" / "frame_relay"
    if built.exists():
        return str(built)
    compiler = shutil.which("cc")
    assert compiler is not None, "neither a built frame_relay nor a C compiler"
    made = tmp_path_factory.mktemp("relay") / "frame_relay"
    source = str(REPOSITORY / "native" / "tests" / "frame_relay.c")
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", str(made), source], check=True, timeout=60)
    return str(made)


@pytest.fixture
def cable(program: str) -> Iterator[Cable]:
    names = [f"gzfr{os.getpid()}{end}" for end in "amb"]
    a, m, b = names
    try:
        for name in names:
            ip("netns", "add", name)
            # No neighbour discovery of the kernel's among the frames the tests count.
            subprocess.run(
                inside(name, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"), check=True, timeout=10
            )
        for number, outer, end, inner in ((1, a, "fa", "ma"), (2, b, "fb", "mb")):
            mac = f"02:00:00:00:77:0{number}"
            ip(
                "-n",
                outer,
                "link",
                "add",
                "dev",
                end,
                "address",
                mac,
                "type",
                "veth",
                "peer",
                "name",
                inner,
                "netns",
                m,
            )
            ip("-n", outer, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            ip("-n", outer, "link", "set", "dev", end, "up")
            ip("-n", m, "link", "set", "dev", inner, "up")
            peer = 3 - number
            neighbour = ["to", f"10.77.0.{peer}", "lladdr", f"02:00:00:00:77:0{peer}", "nud", "permanent"]
            ip("-n", outer, "neigh", "add", *neighbour, "dev", end)
            # Plain frames: no checksum and no segmentation left to a device.
            off = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"]
            subprocess.run(inside(outer, "ethtool", "-K", end, *off), check=True, capture_output=True, timeout=10)
        yield Cable(a, m, b, program)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10)


def transfer(cable: Cable, blocks: int) -> None:
    """Send bytes from A to B by the kernels' TCP and check that they arrive as they were."""
    server = cable.listen(RECEIVE)
    try:
        cable.send(SEND, str(blocks))
        out, _ = server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    digest = hashlib.sha256()
    for number in range(blocks):
        digest.update(number.to_bytes(8, "big") + BLOCK)
    assert out.split() == [str(blocks * (len(BLOCK) + 8)), digest.hexdigest()]


def test_a_good_cable_carries_everything_unchanged(cable: Cable) -> None:
    relay = cable.relay()
    transfer(cable, 1000)
    counted = stop(relay)
    for way in ("a_to_b", "b_to_a"):
        assert counted[way]["received"] == counted[way]["sent"] > 1000
        assert {name: counted[way][name] for name in ("lost", "reordered", "duplicated", "refused", "held")} == {
            "lost": 0, "reordered": 0, "duplicated": 0, "refused": 0, "held": 0,
        }  # fmt: skip
        assert counted[way]["overflow"] == counted[way]["unfinished_checksum"] == 0


def test_tcp_gets_through_a_bad_cable(cable: Cable) -> None:
    relay = cable.relay("--seed", "7", "--loss", "0.01", "--reorder", "0.01", "--duplicate", "0.01")
    transfer(cable, 250)
    counted = stop(relay)["a_to_b"]
    for name in ("lost", "reordered", "duplicated"):
        assert 0.005 < counted[name] / counted["received"] < 0.015, name
    assert counted["sent"] + counted["held"] == counted["received"] - counted["lost"] + counted["duplicated"]


def datagrams(cable: Cable, seed: int) -> list[int]:
    relay = cable.relay("--seed", str(seed), "--loss", "0.1", "--reorder", "0.1", "--duplicate", "0.1")
    server = cable.listen(RECEIVE_DATAGRAMS)
    try:
        cable.send(SEND_DATAGRAMS)
        out, _ = server.communicate(timeout=30)
    finally:
        server.kill()
        server.wait()
    counted = stop(relay)["a_to_b"]
    numbers: list[int] = json.loads(out)
    assert counted["received"] == 500
    assert len(set(numbers)) == 500 - counted["lost"]
    assert counted["sent"] == len(numbers)
    return numbers


def test_the_seed_decides_the_fate_of_each_frame(cable: Cable) -> None:
    first, again, other = (datagrams(cable, seed) for seed in (3, 3, 4))
    assert sorted(first) == sorted(again)
    assert sorted(first) != sorted(other)


def test_a_held_frame_is_overtaken_by_a_few_and_never_kept(cable: Cable) -> None:
    numbers = datagrams(cable, 5)
    late = [place for place, number in enumerate(numbers) if any(before > number for before in numbers[:place])]
    assert late
    for place in late:
        # 8 overtake at most, each at most twice, with those that were held themselves.
        assert sum(before > numbers[place] for before in numbers[:place]) <= 24


def test_it_ends_by_itself(cable: Cable) -> None:
    argv = inside(cable.m, cable.program, "--a", "ma", "--b", "mb", "--seconds", "0.2")
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10)
    assert 0.2 <= json.loads(done.stdout)["seconds"] < 5


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--a", "ma"], 64, "usage:"),
        (["--a", "ma", "--b", "mb", "--loss", "2"], 64, "--loss 2: expected a number from 0 to 1"),
        (["--a", "ma", "--b", "none"], 69, "none: No such device"),
    ],
)
def test_a_wrong_command_line_is_refused(cable: Cable, options: list[str], status: int, said: str) -> None:
    done = subprocess.run(inside(cable.m, cable.program, *options), capture_output=True, text=True, timeout=10)
    assert done.returncode == status
    assert said in done.stderr
