# SPDX-License-Identifier: MulanPSL-2.0
"""Beside the kernel: the stack serves on the machine's own interface and address, all else stays the kernel's.

 namespace S (the machine)                                   namespace C
redis-server        echo_server (unattached), ping
     | liblstack            |
 1 or 2 workers             |
     | tap                  |
     +----- tc ----- 10.93.0.2, kernel ---- veth, bridge, macvlan ---- 10.93.0.1, kernel
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from kit.instance import Instance, accelerated, in_namespace, on_uplink, wait_running
from kit.lab import Kit, Process, compiled, full
from kit.redis import PORT, ask, load, start_redis
from kit.waiting import until

from gazelled.base.native_build import uplink_control

ECHO = Path(__file__).with_name("echo_server.py")
OTHER_PORT = 7007
REQUESTS = 60_000
FILTER = ("bpf", "direct-action", "bytecode", "1,6 0 0 4294967295")  # of somebody else, who only looks


def before(instance: Instance) -> list[str]:
    """Return what a stop must leave as it was."""
    return [
        instance.home.run("ip", "-br", "address"),
        instance.home.run("ip", "route"),
        instance.home.run("tc", "qdisc", "show"),
        instance.home.run("bpftool", "net"),
    ]


class Session:
    """A TCP session with an unattached server of the machine, as ssh would be one: an echo every 10 ms."""

    def __init__(self, instance: Instance) -> None:
        with in_namespace(instance):
            self._socket = socket.create_connection((instance.address, OTHER_PORT), timeout=5)
        self.echoes, self.longest, self.wrong = 0, 0.0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.01):
                began = time.monotonic()
                self._socket.sendall(b"still there?")
                got = b""
                while len(got) < 12:
                    more = self._socket.recv(12 - len(got))
                    if not more:
                        raise ConnectionError("the session ended")
                    got += more
                self.echoes += 1
                self.longest = max(self.longest, time.monotonic() - began)
        except OSError as error:
            self.wrong = str(error)

    def end(self) -> None:
        """End it; AssertionError if an echo was missing."""
        self._stop.set()
        self._thread.join(10)
        self._socket.close()
        assert not self.wrong, self.wrong
        assert self.echoes > 20


def programs_left(instance: Instance) -> list[str]:
    return [line for line in instance.home.run("bpftool", "prog", "show").splitlines() if "name uplink_" in line]


def start_echo(instance: Instance) -> Process:
    echo = instance.kit.spawn(instance.home, sys.executable, str(ECHO), "0.0.0.0", str(OTHER_PORT))
    echo.said("serving", 10)
    return echo


def _serve_and_leave_no_trace(instance: Instance, *, lossless: bool) -> None:
    """Start, serve, lose every worker and stop; AssertionError if anything else on the interface noticed.

    Unless `lossless`, the interface may lose packets while programs are attached and detached, but no connection.
    """
    as_it_was = before(instance)
    start_echo(instance)
    session = Session(instance)
    ping = instance.kit.spawn(instance.client, "ping", "-i", "0.05", instance.address)
    instance.start()
    redis = start_redis(instance, bind="0.0.0.0")
    # Until the library is attached the kernel serves, and what it has accepted stays its own.
    until(lambda: instance.status()["sockets"]["accelerated"] > 0, "the listener to be the stack's")
    load(instance, REQUESTS)
    accelerated(instance)
    for host in (instance.address, "127.0.0.1"):  # unattached programs of the machine itself
        assert instance.home.run("timeout", "5", "redis-cli", "-h", host, "PING").strip() == "PONG"
    for row in instance.status()["workers"]:
        os.kill(row["pid"], signal.SIGKILL)
    until(lambda: ask(instance, "PING") == "PONG", "redis to answer, by whomever")
    for row in instance.status()["workers"]:
        wait_running(instance, row["queue_id"], -1)
    redis.stop()
    instance.stop()
    session.end()
    ping.popen.send_signal(signal.SIGINT)
    ping.wait(5)
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+)", ping.output())]
    if lossless:
        assert answered == list(range(1, len(answered) + 1))  # the last one may still have been on its way
    assert before(instance) == as_it_was
    assert programs_left(instance) == []


@pytest.mark.parametrize("over", ["veth", "bridge", "macvlan"])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_stack_serves_and_nothing_else_on_the_interface_notices(kit: Kit, workers: int, over: str) -> None:
    _serve_and_leave_no_trace(on_uplink(kit, workers, over), lossless=True)


@pytest.fixture
def before_tcx(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have uplinkctl find a kernel that knows no attachment but to a queueing discipline."""
    source = Path(__file__).with_name("before_tcx.c")
    monkeypatch.setenv("LD_PRELOAD", str(compiled(source, kit.directory, "-shared", "-fPIC")))


@pytest.mark.usefixtures("before_tcx")
@pytest.mark.parametrize("had_qdisc", [False, True], ids=["clsact of its own", "clsact was there"])
def test_before_linux_6_6_the_programs_hang_from_clsact(kit: Kit, had_qdisc: bool) -> None:
    instance = on_uplink(kit, 2)
    if had_qdisc:
        instance.home.run("tc", "qdisc", "add", "dev", "gzs", "clsact")
        instance.home.run("tc", "filter", "add", "dev", "gzs", "ingress", *FILTER)
    _serve_and_leave_no_trace(instance, lossless=had_qdisc)


@pytest.mark.usefixtures("before_tcx")
def test_a_filter_that_came_later_keeps_its_clsact(kit: Kit) -> None:
    instance = on_uplink(kit, 1)
    instance.start()
    shown = instance.home.run("tc", "filter", "show", "dev", "gzs", "ingress")
    assert "uplink_in" in shown, shown
    instance.home.run("tc", "filter", "add", "dev", "gzs", "egress", *FILTER)
    instance.stop()
    assert "clsact" in instance.home.run("tc", "qdisc", "show", "dev", "gzs")
    assert "bytecode" in instance.home.run("tc", "filter", "show", "dev", "gzs", "egress")
    assert not instance.home.run("tc", "filter", "show", "dev", "gzs", "ingress").strip()
    assert programs_left(instance) == []


def test_the_kernel_serves_while_no_worker_lives_and_keeps_what_it_has_accepted(kit: Kit) -> None:
    instance = on_uplink(kit, 1)
    instance.start()
    redis = start_redis(instance, bind="0.0.0.0")
    with in_namespace(instance):
        of_the_stack = socket.create_connection((instance.address, PORT), timeout=5)
    kit.later(of_the_stack.close)
    of_the_stack.sendall(b"PING\r\n")
    assert of_the_stack.recv(100) == b"+PONG\r\n"
    supervisor, worker = instance.supervisor_pid(), instance.worker(0)["pid"]
    os.kill(supervisor, signal.SIGSTOP)  # nobody brings the worker back for now
    try:
        os.kill(worker, signal.SIGKILL)
        until(lambda: ask(instance, "PING") == "PONG", "the kernel to serve")
        with in_namespace(instance):
            of_the_kernel = socket.create_connection((instance.address, PORT), timeout=5)
        kit.later(of_the_kernel.close)
        of_the_kernel.sendall(b"PING\r\n")
        assert of_the_kernel.recv(100) == b"+PONG\r\n"
        of_the_stack.sendall(b"PING\r\n")
        of_the_stack.settimeout(0.5)
        with pytest.raises(TimeoutError):  # silence: no reset by the kernel, which has no such connection
            of_the_stack.recv(100)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_running(instance, 0, worker)
    of_the_kernel.sendall(b"PING\r\n")
    assert of_the_kernel.recv(100) == b"+PONG\r\n", "the kernel's connection does not outlive the stack's return"
    until(lambda: stack_serves(instance), "the stack to serve new connections again")
    assert redis.alive
    of_the_kernel.close()

    def settled() -> bool:
        seen = instance.status()["uplink"]
        return seen["fallen_back"] >= 2 and not seen["kernel_flows"]

    until(settled, "the look-up of each packet to end", 20)
    of_the_stack.close()
    instance.stop()


def stack_serves(instance: Instance) -> bool:
    accepted = instance.page(0).counters()["accepted"]
    return ask(instance, "PING") == "PONG" and instance.page(0).counters()["accepted"] > accepted


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_outgoing_connections_leave_by_the_machines_address(kit: Kit, ipv6: bool) -> None:
    instance = on_uplink(kit, 2, ipv6=ipv6)
    instance.start()
    ours, theirs = ("fd00:93::2", "fd00:93::1") if ipv6 else (instance.address, instance.peer)
    server = kit.spawn(instance.client, "redis-server", "--bind", theirs, "--port", "6400", "--save", "",
                       "--protected-mode", "no", "--dir", str(kit.directory))  # fmt: skip
    server.said("Ready to accept", 10)
    client = instance.spawn("redis-cli", "-h", theirs, "-p", "6400", "-r", "20", "-i", "0.01", "CLIENT", "LIST")
    assert client.wait(20) == 0, client.output()
    assert f"addr={f'[{ours}]' if ipv6 else ours}:" in client.output()
    connected = sum(instance.page(queue).counters()["connected"] for queue in range(2))
    assert connected == 1, client.output()
    instance.stop()


def test_datagrams_of_both_families(kit: Kit) -> None:
    instance = on_uplink(kit, 2, ipv6=True)
    instance.start()
    echo = Path(__file__).with_name("udp_echo.py")
    for family, address in (("ipv4", instance.address), ("ipv6", "fd00:93::2")):
        port = 7100 if family == "ipv4" else 7101
        server = instance.spawn(sys.executable, str(echo), "::" if family == "ipv6" else "0.0.0.0", str(port), "recv")
        server.said("serving", 10)
        with in_namespace(instance):
            client = socket.socket(socket.AF_INET6 if family == "ipv6" else socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(2)
        client.connect((address, port))
        for i in range(200):
            said = f"datagram {i}".encode() * (1 if i % 10 else 500)  # or in fragments
            client.send(said)
            assert client.recv(65536) == said
        client.close()
        server.stop()
    assert sum(instance.page(queue).counters()["datagrams_in"] for queue in range(2)) >= 400
    instance.stop()


def test_fragments_reach_whoever_has_the_port(kit: Kit) -> None:
    instance = on_uplink(kit, 1)
    instance.start()
    echo = str(Path(__file__).with_name("udp_echo.py"))
    on_stack = instance.spawn(sys.executable, echo, "0.0.0.0", "7100", "recv")
    on_kernel = kit.spawn(instance.home, sys.executable, echo, "0.0.0.0", "7101", "recv")
    for server in (on_stack, on_kernel):
        server.said("serving", 10)
    with in_namespace(instance):
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for client, port in zip(clients, (7100, 7101), strict=True):
        client.settimeout(2)
        client.connect((instance.address, port))
    for i in range(50):
        for client in clients:  # in turns, so that fragments of both are on their way
            client.send(bytes([i]) * 20_000)
        for client in clients:
            assert client.recv(65536) == bytes([i]) * 20_000
    for client in clients:
        client.close()
    assert instance.page(0).counters()["datagrams_in"] == 50
    instance.stop()


def test_an_address_the_interface_loses_is_served_no_more(kit: Kit) -> None:
    instance = on_uplink(kit, 1)
    instance.start()
    start_redis(instance, bind="0.0.0.0")
    instance.home.run("ip", "address", "del", f"{instance.address}/24", "dev", "gzs")
    log = instance.run_dir / "supervisor.log"
    until(lambda: "lost the address" in log.read_text(), "the supervisor to follow", 15)
    instance.home.run("ip", "address", "add", f"{instance.address}/24", "dev", "gzs")
    until(lambda: stack_serves(instance), "the stack to serve again", 15)
    instance.stop()


def test_a_renamed_interface_is_followed_and_left_as_it_was(kit: Kit) -> None:
    instance = on_uplink(kit, 1)
    instance.start()
    start_redis(instance, bind="0.0.0.0")
    instance.home.run("ip", "link", "set", "gzs", "down")
    instance.home.run("ip", "link", "set", "gzs", "name", "gzr")
    instance.home.run("ip", "link", "set", "gzr", "up")
    until(lambda: instance.status()["uplink"]["interface"] == "gzr", "the supervisor to follow", 15)
    until(lambda: stack_serves(instance), "the stack to serve again", 15)
    instance.stop()
    shown = instance.home.try_run(str(uplink_control()), "show", "gzr")
    assert "no program of gazelled is attached to it" in shown.stderr


def test_an_interface_that_is_gone_is_told_and_stops_nothing(kit: Kit) -> None:
    instance = on_uplink(kit, 1)
    instance.start()
    start_redis(instance, bind="0.0.0.0")
    instance.home.run("ip", "link", "del", "gzs")
    until(lambda: instance.status()["uplink"].get("gone"), "the supervisor to notice", 15)
    assert "which is gone" in instance.call("status").stdout
    assert instance.home.run("timeout", "5", "redis-cli", "-h", "127.0.0.1", "PING").strip() == "PONG"
    instance.stop()
    assert instance.left_over() == []


def test_a_firewall_is_passed_only_if_that_is_meant(kit: Kit) -> None:
    instance = on_uplink(kit, 1)
    as_it_was = before(instance)
    instance.home.run("nft", "add", "table", "inet", "filter")
    instance.home.run("nft", "add", "chain", "inet", "filter", "input", "{ type filter hook input priority 0; }")
    instance.start()  # a chain without a rule refuses nothing
    instance.stop()
    instance.home.run("nft", "add", "rule", "inet", "filter", "input", "tcp", "dport", str(PORT), "drop")
    done = instance.call("start", "-c", str(instance.config))
    assert done.returncode != 0
    assert "inet filter input" in done.stderr
    assert "past-firewall" in done.stderr
    assert instance.left_over() == []
    assert before(instance) == as_it_was
    instance.config.write_text(instance.config.read_text() + "past_firewall = true\n")
    instance.start()
    instance.stop()


def test_requests_are_answered_whoever_serves_while_workers_are_killed(kit: Kit) -> None:
    """A connection for each request, and a worker killed every 2 s: 30 times with FULL=1."""
    kills = 30 if full() else 4
    instance = on_uplink(kit, 2)
    instance.start()
    (kit.directory / "page").write_text("x" * 600)
    config = kit.directory / "nginx.conf"
    config.write_text(f"""
        user root; daemon off; worker_processes 2; pid {kit.directory}/pid; error_log stderr warn;
        events {{ worker_connections 4096; }}
        http {{ access_log off; server {{ listen 8080; root {kit.directory}; }} }}
    """)
    nginx = instance.spawn("nginx", "-c", str(config), "-e", "stderr")
    url = f"http://{instance.address}:8080/page"
    until(lambda: instance.client.try_run("curl", "-sf", "-m", "2", url).returncode == 0, "nginx to answer", 15)
    wrk = kit.spawn(
        instance.client, "wrk", "-t1", "-c20", f"-d{2 * kills + 1}s", "--timeout", "2s", "-H", "Connection: close", url
    )
    began = time.monotonic()
    for kill in range(kills):
        until(lambda due=began + 2 * kill + 1: time.monotonic() >= due, "the next kill", 5)  # type: ignore[misc]
        victim = instance.worker(kill % 2)
        if victim["pid"]:
            os.kill(victim["pid"], signal.SIGKILL)
    assert wrk.wait(30) == 0, wrk.output()
    said = wrk.output()
    done = re.search(r"(\d+) requests in", said)
    assert done is not None, said
    errors = sum(int(number) for number in re.findall(r"(?:connect|read|write|timeout) (\d+)", said))
    assert int(done[1]) > 1000 * kills, said
    assert errors <= int(done[1]) / 100, said
    assert "Non-2xx" not in said, said
    assert nginx.alive, nginx.output()
    instance.stop()
