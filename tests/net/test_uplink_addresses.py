# SPDX-License-Identifier: MulanPSL-2.0
"""Beside the kernel, on an interface with several addresses and routes: what programs see is what the kernel shows.

A program says the addresses of its sockets, first on the kernel, then on the stack. The interface has 10.93.0.2,
10.93.0.12, 10.95.0.2 of another subnet, fd00:93::2 and fe80::2; the other side has the same with 1, and 10.99.0.1,
which a route of its own leads to.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from kit.instance import Instance, in_namespace, on_uplink
from kit.lab import Kit, Process
from kit.namespaces import Namespace
from kit.waiting import until

from gazelled.base.native_build import uplink_control

PROGRAM = str(Path(__file__).with_name("addresses_program.py"))
ECHO = str(Path(__file__).with_name("echo_server.py"))
UDP_ECHO = str(Path(__file__).with_name("udp_echo.py"))
PORT = 7300
OURS = ("10.93.0.2", "10.93.0.12", "10.95.0.2", "fd00:93::2", "fe80::2%gzc")
THEIRS = ("10.93.0.1", "10.93.0.12>10.93.0.1", "10.95.0.1", "10.99.0.1", "10.93.0.2>10.99.0.1", "fd00:93::1",
          "fe80::1%gzs", "fe80::2%gzs>fe80::1%gzs")  # fmt: skip


def machine(kit: Kit) -> Instance:
    """Return an instance that is not started, between whose machines each of the addresses leads somewhere."""
    instance = on_uplink(kit, 2, ipv6=True)
    for namespace, device, number in ((instance.home, "gzs", 2), (instance.client, "gzc", 1)):
        namespace.run("ip", "address", "add", f"10.95.0.{number}/24", "dev", device)
        namespace.run("ip", "address", "add", f"fe80::{number}/64", "dev", device, "nodad")
    instance.home.run("ip", "address", "add", "10.93.0.12/24", "dev", "gzs")
    instance.client.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    instance.home.run("ip", "route", "add", "10.99.0.0/16", "via", "10.93.0.1", "src", "10.93.0.12")
    return instance


def served(process: Process) -> Process:
    process.said("serving", 10)
    return process


def asked(kit: Kit, namespace: Namespace, port: int, where: Sequence[str]) -> list[str]:
    client = kit.spawn(namespace, sys.executable, PROGRAM, "connect", str(port), *where)
    assert client.wait(30) == 0, client.output()
    return client.output().splitlines()


def counted(instance: Instance, name: str) -> int:
    return sum(instance.page(queue).counters()[name] for queue in range(2))


def test_every_address_serves_as_the_kernels_do(kit: Kit) -> None:
    instance = machine(kit)
    server = served(kit.spawn(instance.home, sys.executable, PROGRAM, "serve", str(PORT), OURS[1]))
    by_kernel = [asked(kit, instance.client, port, OURS) for port in (PORT, PORT + 1)]
    server.stop()
    assert not any("error" in line.lower() or "refused" in line for line in by_kernel[0]), by_kernel
    assert sum("Connection refused" in line for line in by_kernel[1]) == 9, by_kernel  # all but one, of TCP
    instance.start()
    server = served(instance.spawn(sys.executable, PROGRAM, "serve", str(PORT), OURS[1]))
    assert [asked(kit, instance.client, port, OURS) for port in (PORT, PORT + 1)] == by_kernel
    assert (counted(instance, "accepted"), counted(instance, "datagrams_in")) == (len(OURS) + 1, len(OURS))
    server.stop()
    instance.stop()


def test_connections_leave_by_the_address_the_kernel_chooses(kit: Kit) -> None:
    instance = machine(kit)
    served(kit.spawn(instance.client, sys.executable, PROGRAM, "serve", str(PORT), "10.93.0.1"))
    by_kernel = asked(kit, instance.home, PORT, THEIRS)
    assert sum("10.93.0.12 > 10.99.0.1" in line for line in by_kernel) == 2, by_kernel
    instance.start()
    client = instance.spawn(sys.executable, PROGRAM, "connect", str(PORT), *THEIRS)
    assert client.wait(30) == 0, client.output()
    assert client.output().splitlines() == by_kernel
    assert (counted(instance, "connected"), counted(instance, "datagrams_in")) == (len(THEIRS), len(THEIRS))
    instance.stop()


@pytest.mark.parametrize("new", ["10.93.0.77/24", "fd00:93::77/64"])
def test_an_address_that_comes_is_served_at_once_and_one_that_goes_no_more(kit: Kit, new: str) -> None:
    instance = machine(kit)
    instance.start()
    address = new.partition("/")[0]
    served(instance.spawn(sys.executable, PROGRAM, "serve", str(PORT), OURS[0]))
    instance.home.run("ip", "address", "add", new, "dev", "gzs", *(["nodad"] if ":" in new else []))

    shown = (str(uplink_control()), "show", "gzs")

    def taken() -> bool:
        return address in instance.home.run(*shown)

    until(taken, "the new address to be the stack's", 5)
    accepted = counted(instance, "accepted")
    line = asked(kit, instance.client, PORT, [address])[0]
    assert f"{address} < " in line, line
    assert counted(instance, "accepted") == accepted + 1
    late = served(instance.spawn(sys.executable, PROGRAM, "serve", str(PORT + 10), address))  # bound to it alone
    assert "<" in asked(kit, instance.client, PORT + 11, [address])[0]
    assert counted(instance, "accepted") == accepted + 2
    late.stop()
    instance.home.run("ip", "address", "del", new, "dev", "gzs")
    until(lambda: not taken(), "the address to be the stack's no more", 5)
    assert "<" in asked(kit, instance.client, PORT, [OURS[0]])[0]
    instance.stop()


def test_the_same_port_of_another_address_or_family_stays_the_kernels(kit: Kit) -> None:
    """One program on the stack, others on the kernel, all on one port: each packet reaches whose it is."""
    instance = machine(kit)
    instance.start()
    ours = [instance.spawn(sys.executable, ECHO, OURS[0], str(PORT)),
            instance.spawn(sys.executable, UDP_ECHO, OURS[0], str(PORT), "recv")]  # fmt: skip
    theirs = [kit.spawn(instance.home, sys.executable, *server)
              for address in ("10.93.0.12", "fd00:93::2")
              for server in ((ECHO, address, str(PORT)), (UDP_ECHO, address, str(PORT), "recv"))]  # fmt: skip
    for server in (*ours, *theirs):
        served(server)
    accepted, came = counted(instance, "accepted"), counted(instance, "datagrams_in")
    said = bytes(range(256)) * 4000
    for address in ("10.93.0.2", "10.93.0.12", "fd00:93::2"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with in_namespace(instance):
            stream, datagrams = socket.socket(family), socket.socket(family, socket.SOCK_DGRAM)
        with stream, datagrams:
            for client in (stream, datagrams):
                client.settimeout(5)
                client.connect((address, PORT))
            datagrams.send(said[:20000])
            assert datagrams.recv(65536) == said[:20000], address
            sender = threading.Thread(target=stream.sendall, args=(said,))
            sender.start()
            back = b""
            while len(back) < len(said):
                back += stream.recv(1 << 20)
            sender.join()
            assert back == said, address
    assert (counted(instance, "accepted"), counted(instance, "datagrams_in")) == (accepted + 1, came + 1)
    assert json.loads(instance.home.run(str(uplink_control()), "show", "gzs"))["returned"] > 0
    with in_namespace(instance):
        nobody = socket.socket()
    with nobody, pytest.raises(ConnectionRefusedError):  # the kernel's word, at once
        nobody.connect(("10.95.0.2", PORT))
    instance.stop()
