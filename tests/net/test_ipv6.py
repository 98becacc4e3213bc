# SPDX-License-Identifier: MulanPSL-2.0
"""IPv6 over the wire and within the host.

   namespace S                     namespace C (veth; with a tap both are S)
redis-server, curl                redis-benchmark, ping, HTTP server
   | liblstack                           |
stack fd00:9x::2 (1 or 2 workers)     kernel fd00:9x::1
   |                                     |
  gzs or tap ---------------------------gzc

Two workers need each other: a neighbour's answer, or a packet, comes by the queue of either.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from kit.datagrams import CLIENT
from kit.instance import Instance, on_tap, on_veth
from kit.lab import Kit
from kit.redis import serve_fifty_clients
from kit.transfer import SERVER, make_file

REQUESTS = 100_000
DATAGRAMS = Path(__file__).with_name("udp_echo.py")
NARROW = """
import errno, socket, sys
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.settimeout(3)
client.connect((sys.argv[1], 5300))
client.send(b"x" * 1400)
try:
    client.recv(2000)
    raise AssertionError("it went through")
except OSError as error:
    assert error.errno == errno.EMSGSIZE, error
for size in (1400, 5000):
    client.send(b"y" * size)
    assert client.recv(6000) == b"y" * size
"""
REFUSED = """
import errno, socket, sys
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.settimeout(3)
client.connect((sys.argv[1], 5301))
client.send(b"anybody there?")
try:
    client.recv(100)
    raise AssertionError("an answer from nobody")
except ConnectionRefusedError:
    pass
"""
PORTS = pytest.mark.parametrize(("port", "workers"), [("tap", 1), ("tap", 2), ("veth", 2)])


def _started(kit: Kit, port: str, workers: int) -> Instance:
    instance = (on_tap if port == "tap" else on_veth)(kit, workers, ipv6=True)
    instance.start()
    net = 91 if port == "tap" else 92
    return replace(instance, address=f"fd00:{net}::2", peer=f"fd00:{net}::1")


@PORTS
def test_the_stack_answers_pings_whole_and_in_fragments(kit: Kit, port: str, workers: int) -> None:
    instance = _started(kit, port, workers)
    for size in ("56", "1452", "1453", "5000", "40000"):
        done = instance.client.try_run("ping", "-6", "-c", "3", "-i", "0.1", "-W", "2", "-s", size, instance.address)
        assert " 0% packet loss" in done.stdout, done.stdout + done.stderr + instance.logs()
    instance.stop()


def test_the_host_forwards_to_the_stack_at_once(kit: Kit) -> None:
    """A client behind the host is served although the host itself has never talked to the stack.

    namespace C (fd00:94::2) --- veth --- namespace S --- tap --- stack
    """
    instance = on_tap(kit, 1, ipv6=True, routed=True)
    away = kit.namespace("a")
    instance.home.connect("out", away, "in")
    for namespace, device, address in ((instance.home, "out", "fd00:94::1/64"), (away, "in", "fd00:94::2/64")):
        namespace.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=0")
        namespace.run("ip", "-6", "address", "add", address, "dev", device, "nodad")
    away.run("ip", "-6", "route", "add", "default", "via", "fd00:94::1")
    instance.home.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    instance.start()
    done = away.try_run("ping", "-6", "-c", "2", "-i", "0.2", "-W", "2", "fd00:91::2")
    assert " 0% packet loss" in done.stdout, done.stdout + done.stderr
    instance.stop()


@PORTS
def test_redis_serves_fifty_clients_without_an_error(kit: Kit, port: str, workers: int) -> None:
    serve_fifty_clients(_started(kit, port, workers), REQUESTS, workers)


@PORTS
def test_a_program_on_the_stack_fetches_a_large_file(kit: Kit, port: str, workers: int) -> None:
    instance = _started(kit, port, workers)
    path, digest = make_file(kit.directory, 64)
    server = kit.spawn(instance.client, sys.executable, str(SERVER), instance.peer, "8080", str(kit.directory))
    server.said("serving")
    copy = path.with_name("copy")
    fetch = ["curl", "-sSf", "--max-time", "100", "-o", str(copy), f"http://[{instance.peer}]:8080/file"]
    done = instance.home.try_run(*instance.attached(*fetch), timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr + instance.logs()
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest
    assert sum(instance.page(queue_id).counters()["connected"] for queue_id in range(workers)) == 1
    instance.stop()


def test_a_listener_on_all_addresses_serves_kernel_and_stack_in_both_families(kit: Kit) -> None:
    instance = _started(kit, "tap", 1)
    (kit.directory / "file").write_text("what was asked for")
    server = instance.spawn(sys.executable, str(SERVER), "::", "8080", str(kit.directory))
    server.said("serving")
    for host in ("[::1]", "127.0.0.1", "[fd00:91::2]", "10.91.0.2"):
        fetch = ["curl", "-sSf", "--max-time", "5", f"http://{host}:8080/file"]
        for command in (fetch, instance.attached(*fetch)):
            done = instance.home.try_run(*command)
            assert done.stdout == "what was asked for", (command, done.stderr, server.output())
    assert instance.page(0).counters()["accepted"] == 2, "by the wire: one connection of each family"
    server.stop()
    instance.stop()


@PORTS
@pytest.mark.parametrize("how", ["recv", "epoll"])
def test_datagrams_come_back_whole(kit: Kit, port: str, workers: int, how: str) -> None:
    instance = _started(kit, port, workers)
    server = instance.spawn(sys.executable, str(DATAGRAMS), instance.address, "5300", how)
    server.said("serving")
    instance.client.run(sys.executable, "-c", CLIENT, instance.address)
    took = [instance.page(queue_id).counters()["datagrams_in"] for queue_id in range(workers)]
    assert sum(took) == 40, took
    instance.client.run(sys.executable, "-c", REFUSED, instance.address)
    instance.home.run(*instance.attached(sys.executable, "-c", CLIENT, instance.address))
    assert server.alive
    server.stop()
    instance.stop()


@PORTS
def test_a_client_of_datagrams_hears_that_nobody_is_there(kit: Kit, port: str, workers: int) -> None:
    instance = _started(kit, port, workers)
    kit.spawn(instance.client, sys.executable, str(DATAGRAMS), instance.peer, "5300", "recv").said("serving")
    instance.home.run(*instance.attached(sys.executable, "-c", CLIENT, instance.peer))
    instance.home.run(*instance.attached(sys.executable, "-c", REFUSED, instance.peer))
    assert sum(instance.page(queue_id).counters()["datagrams_out"] for queue_id in range(workers)) >= 41
    instance.stop()


def test_a_socket_on_all_addresses_hears_kernel_and_stack_in_both_families(kit: Kit) -> None:
    instance = _started(kit, "tap", 2)
    server = instance.spawn(sys.executable, str(DATAGRAMS), "::", "5300", "epoll")
    server.said("serving")
    for host in ("::1", "127.0.0.1", "fd00:91::2", "10.91.0.2"):
        instance.home.run(sys.executable, "-c", CLIENT, host)
        instance.home.run(*instance.attached(sys.executable, "-c", CLIENT, host))
    took = sum(instance.page(queue_id).counters()["datagrams_in"] for queue_id in range(2))
    assert took >= 80, "by the wire: forty of each family"
    server.stop()
    instance.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_datagrams_find_a_path_that_takes_less_than_the_device(kit: Kit, workers: int) -> None:
    instance = on_tap(kit, workers, ipv6=True, routed=True)
    instance.start()
    beyond = kit.namespace("b")
    instance.home.connect("near", beyond, "far")
    for place, device, own in ((instance.home, "near", "1"), (beyond, "far", "2")):
        place.run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=0", "net.ipv6.conf.all.forwarding=1")
        place.run("ip", "link", "set", device, "mtu", "1300", "up")
        place.run("ip", "addr", "add", f"fd00:99::{own}/64", "dev", device, "nodad")
    beyond.run("ip", "route", "add", "fd00:91::/64", "via", "fd00:99::1")
    kit.spawn(beyond, sys.executable, str(DATAGRAMS), "fd00:99::2", "5300", "recv").said("serving")
    done = instance.home.try_run(*instance.attached(sys.executable, "-c", NARROW, "fd00:99::2"))
    assert done.returncode == 0, done.stdout + done.stderr + instance.logs()
    instance.stop()
