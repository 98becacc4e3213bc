# SPDX-License-Identifier: MulanPSL-2.0
"""Datagrams: a server on the stack, its clients on the kernel's side of the tap, and the other way round."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from kit.datagrams import CLIENT
from kit.instance import Instance, started, wait_running
from kit.lab import Kit, Process

SERVER = str(Path(__file__).with_name("udp_echo.py"))
CALLS = """
import errno, socket
peer = ("10.91.0.1", 5300)
first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
first.settimeout(3)
first.sendto(b"unbound", peer)
assert first.recvfrom(100) == (b"unbound", peer)
first.connect(peer)
assert first.getpeername() == peer and first.getsockname()[0] == "10.91.0.2"
first.send(b"hello world")
assert first.recv(5, socket.MSG_PEEK) == b"hello"
assert first.recvmsg(5)[2] == socket.MSG_TRUNC
first.send(b"")
assert first.recv(10) == b""
try:
    first.send(b"x" * 65508)
    raise AssertionError("65508 bytes went")
except OSError as error:
    assert error.errno == errno.EMSGSIZE
first.setblocking(False)
try:
    first.recv(1)
    raise AssertionError("a datagram out of nothing")
except BlockingIOError:
    pass
"""


def _server(instance: Instance, address: str, how: str) -> Process:
    process = instance.spawn(sys.executable, SERVER, address, "5300", how)
    process.said("serving")
    return process


def _datagrams(instance: Instance, counter: str, workers: int) -> list[int]:
    return [instance.page(queue_id).counters()[counter] for queue_id in range(workers)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", ["recv", "poll", "epoll"])
def test_every_datagram_comes_back_whole(kit: Kit, workers: int, how: str) -> None:
    instance = started(kit, "tap", workers)
    _server(instance, instance.address, how)
    instance.client.run(sys.executable, "-c", CLIENT, instance.address)
    assert sum(_datagrams(instance, "datagrams_in", workers)) >= 40


def test_a_server_on_any_address_hears_stack_and_loopback(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    _server(instance, "0.0.0.0", "epoll")
    instance.client.run(sys.executable, "-c", CLIENT, "127.0.0.1")
    assert sum(_datagrams(instance, "datagrams_in", 2)) == 0
    instance.client.run(sys.executable, "-c", CLIENT, instance.address)
    assert sum(_datagrams(instance, "datagrams_in", 2)) >= 40


def test_a_client_on_the_stack_sees_the_calls_as_linux_has_them(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    kit.spawn(instance.client, sys.executable, SERVER, instance.peer, "5300", "recv").said("serving")
    instance.home.run(*instance.attached(sys.executable, "-c", CALLS))
    assert sum(_datagrams(instance, "datagrams_out", 2)) >= 3


def test_a_server_serves_on_after_its_worker_was_killed(kit: Kit) -> None:
    instance = started(kit, "tap", 1)
    server = _server(instance, instance.address, "epoll")
    instance.client.run(sys.executable, "-c", CLIENT, instance.address)
    pid = instance.worker(0)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_running(instance, 0, pid)
    again = CLIENT.replace("import socket, sys", RETRY)
    instance.client.run(sys.executable, "-c", again, instance.address)
    assert server.alive


RETRY = """
import socket, sys
for attempt in range(50):
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.settimeout(0.2)
    probe.sendto(b"there?", (sys.argv[1], 5300))
    try:
        assert probe.recv(100) == b"there?"
        break
    except TimeoutError:
        continue
"""
