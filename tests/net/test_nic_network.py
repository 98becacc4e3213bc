# SPDX-License-Identifier: MulanPSL-2.0
"""What an interface had is put back by the real `ip` and the real kernel, not only by the fakes of the unit tests.

  one namespace
+---------------------------------------------+
|  lan0 (captured, deleted, made anew) --- far |
+---------------------------------------------+
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

CAPTURE = """
import json
from gazelled.nics.network import cannot_restore, capture, read_network
from gazelled.host.sysfs import Host, read_interface
network = read_network()
refused = [route["dst"] for route in network.routes_of("lan0") if cannot_restore(route)]
print(json.dumps([capture(read_interface(Host(), "lan0"), network).to_json(), sorted(refused)]))
"""
RESTORE = """
import json, sys
from gazelled.nics.network import InterfaceState, restore
from gazelled.host.sysfs import Host
restore(Host(), InterfaceState.from_json(json.loads(sys.argv[1])), sys.argv[2])
"""

SETUP = (
    "link set dev lan0 address 02:00:00:00:55:01",
    "link set dev lan0 mtu 1400",
    "link set dev lan0 up",
    "addr add 10.55.0.1/24 broadcast + dev lan0",
    "addr add 10.55.0.2/24 dev lan0 label lan0:web",
    "addr add 10.56.0.1 peer 10.56.0.2/32 dev lan0",
    "addr add 10.57.0.1/24 dev lan0 noprefixroute",
    "addr add fd55::1/64 dev lan0 nodad",
    "route add default via 10.55.0.254 dev lan0 proto static metric 50",
    "route add 10.60.0.0/16 via 10.55.0.7 mtu 1300 advmss 1000 src 10.55.0.2 table 77",
    "route add 10.61.0.0/16 dev lan0 tos 0x10",
    "route add 10.62.0.0/16 via inet6 fe80::7 dev lan0",
    "route add 10.63.0.0/16 via 192.0.2.7 dev lan0 onlink",
    "route append 10.63.0.0/16 via 192.0.2.8 dev lan0 onlink",
    "route add 10.64.0.0/16 via 10.61.0.1 dev lan0 onlink",
    "route add local 10.65.0.0/24 dev lan0",
    "-6 route add fd60::/64 via fe80::7 dev lan0 pref high",
    "-6 route add fd61::/64 dev lan0 metric 7",
)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"gznn{os.getpid()}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10)


def ip(namespace: str, words: str) -> None:
    done = subprocess.run(["ip", "-n", namespace, *words.split()], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, f"ip {words}: {done.stderr}"


def make_pair(namespace: str, name: str) -> None:
    ip(namespace, f"link add dev {name} type veth peer name far")
    ip(namespace, "link set dev far up")


def python(namespace: str, program: str, *arguments: str) -> str:
    argv = ["ip", "netns", "exec", namespace, sys.executable, "-c", program, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def capture(namespace: str) -> tuple[dict[str, Any], list[str]]:
    state, refused = json.loads(python(namespace, CAPTURE))
    return state, refused


def test_an_interface_made_anew_gets_all_it_had(namespace: str) -> None:
    make_pair(namespace, "lan0")
    for words in SETUP:
        ip(namespace, words)
    before, refused = capture(namespace)
    assert refused == []
    assert len(before["addresses"]) == 6  # with the link-local one
    assert len(before["routes"]) == 10
    ip(namespace, "link del dev lan0")
    make_pair(namespace, "anew0")
    ip(namespace, "link set dev anew0 up")
    for name in ("anew0", "lan0"):  # the second time there is nothing to do
        python(namespace, RESTORE, json.dumps(before), name)
        after, _ = capture(namespace)
        assert after["routes"] == before["routes"]
        assert sorted(each["local"] for each in after["addresses"]) == sorted(e["local"] for e in before["addresses"])
        kept = ("name", "mac", "mtu", "up", "master")
        assert {key: after[key] for key in kept} == {key: before[key] for key in kept}


def test_an_interface_that_was_down_stays_down_with_its_addresses(namespace: str) -> None:
    make_pair(namespace, "lan0")
    ip(namespace, "addr add 10.55.0.1/24 dev lan0")
    before, _ = capture(namespace)
    ip(namespace, "link del dev lan0")
    make_pair(namespace, "anew0")
    python(namespace, RESTORE, json.dumps(before), "anew0")
    assert capture(namespace)[0] == before
    assert before["up"] is False


def test_a_port_of_a_bridge_is_put_back_into_it(namespace: str) -> None:
    make_pair(namespace, "lan0")
    ip(namespace, "link add dev br0 type bridge")
    ip(namespace, "link set dev lan0 master br0")
    before, _ = capture(namespace)
    ip(namespace, "link del dev lan0")
    make_pair(namespace, "lan0")
    python(namespace, RESTORE, json.dumps(before), "lan0")
    assert capture(namespace)[0]["master"] == "br0"


def test_what_cannot_be_put_back_is_known_before(namespace: str) -> None:
    make_pair(namespace, "lan0")
    ip(namespace, "link set dev lan0 up")
    ip(namespace, "addr add 10.55.0.1/24 dev lan0")
    ip(namespace, "route add 10.60.0.0/16 nexthop via 10.55.0.7 nexthop via 10.55.0.8")
    assert capture(namespace)[1] == ["10.60.0.0/16"]
