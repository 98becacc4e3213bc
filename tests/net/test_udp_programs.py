# SPDX-License-Identifier: MulanPSL-2.0
"""Programs that speak UDP: on the stack, their peers on the kernel's side of the tap."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from kit.instance import Instance, started
from kit.lab import Kit

DNS = str(Path(__file__).with_name("udp_dns.py"))


def _counted(instance: Instance, counter: str) -> int:
    return sum(instance.page(queue_id).counters()[counter] for queue_id in range(2))


@pytest.mark.parametrize("reverse", [False, True], ids=["in", "out"])
def test_iperf3_loses_nothing_that_is_not_counted(kit: Kit, reverse: bool) -> None:
    instance = started(kit, "tap", 2)
    server = instance.spawn("iperf3", "-s", "-1", "--forceflush", "-p", "5210", "-B", instance.address)
    server.said("listening")
    way = ["-R"] if reverse else []
    done = instance.client.run(
        "iperf3", "-c", instance.address, "-p", "5210", "-u", "-b", "200M", "-t", "2", "-J", *way, timeout=60
    )
    total = json.loads(done)["end"]["sum"]
    assert total["packets"] > 1000
    device = json.loads(instance.home.run("ip", "-j", "-s", "link", "show", instance.device))[0]["stats64"]
    if reverse:  # what the client's own kernel drops is not ours to count
        assert _counted(instance, "datagrams_out") >= total["packets"]
        assert _counted(instance, "datagrams_dropped") == 0
    else:
        counted = _counted(instance, "datagrams_dropped") + device["tx"]["dropped"]
        assert total["lost_packets"] <= counted, (total, counted)
        assert total["lost_packets"] < total["packets"] / 2, total


def test_a_resolver_asks_a_name_server_on_the_kernel(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    kit.spawn(instance.client, sys.executable, DNS, "serve", instance.peer).said("serving")
    instance.home.run(*instance.attached(sys.executable, DNS, "ask", instance.peer))
    assert _counted(instance, "datagrams_in") == 1


def test_a_name_server_on_the_stack_is_asked_by_libc(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    instance.spawn(sys.executable, DNS, "serve", instance.address).said("serving")
    etc = Path("/etc/netns") / instance.client.name
    kit.later(lambda: shutil.rmtree(etc))
    etc.mkdir(parents=True)
    (etc / "resolv.conf").write_text(f"nameserver {instance.address}\noptions timeout:3\n")
    instance.client.run(sys.executable, DNS, "ask-through-libc", "stack.test")
    # An attached program's libc resolves by sockets of its own, which are the kernel's.
    instance.home.run(*instance.attached(sys.executable, DNS, "ask-through-libc", "stack.test"))
    assert _counted(instance, "datagrams_out") >= 2


def test_two_programs_of_one_host_reach_each_other(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    instance.spawn(sys.executable, DNS, "serve", instance.address).said("serving")
    instance.home.run(*instance.attached(sys.executable, DNS, "ask", instance.address))
    assert _counted(instance, "datagrams_in") == 2
