# SPDX-License-Identifier: MulanPSL-2.0
"""An instance comes, serves, goes, and the host is as it was, whoever fails or is killed on the way.

 namespace S                            namespace S                     namespace C
kernel --- gz-NAME (tap) --- workers        workers --- gzs --- veth --- gzc
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from kit.instance import Instance, on_tap, on_veth, wait_running
from kit.lab import Kit
from kit.waiting import until

from gazelled.instance.run_dir import RunDir


def host(instance: Instance) -> dict[str, object]:
    """Look at everything an instance touches."""
    return {
        "links": instance.home.run("ip", "-d", "link"),
        "addresses": instance.home.run("ip", "address"),
        "routes": instance.home.run("ip", "route", "show", "table", "all"),
        "left over": instance.left_over(),
        "shared memory": sorted(path.name for path in Path("/dev/shm").iterdir() if instance.name in path.name),
    }


def killed(instance: Instance) -> None:
    """Kill the supervisor, and wait until its lock is free."""
    os.kill(instance.supervisor_pid(), signal.SIGKILL)
    until(lambda: instance.status()["pid"] is None, "the supervisor to be gone")


@pytest.mark.parametrize("port", ["tap", "veth"])
def test_start_and_stop_leave_the_host_as_it_was(kit: Kit, port: str) -> None:
    instance = (on_tap if port == "tap" else on_veth)(kit, 2)
    before = host(instance)
    for _ in range(2):
        instance.start()
        assert instance.status()["state"] == "running"
        assert len(instance.left_over()) > 3
        instance.stop()
        assert host(instance) == before


def test_a_device_that_was_down_is_down_again_and_its_xdp_program_is_gone(kit: Kit) -> None:
    instance = on_veth(kit, 1)
    instance.home.run("ip", "link", "set", "gzs", "down")
    before = host(instance)
    instance.start()
    running = instance.home.run("ip", "-d", "link", "show", "gzs")
    assert "xdp" in running
    assert ",UP" in running
    killed(instance)
    assert "xdp" in instance.home.run("ip", "-d", "link", "show", "gzs")
    instance.stop()
    assert host(instance) == before


def test_workers_have_a_user_of_their_own_once_their_port_is_open(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    user = pwd.getpwnam("gazelle")
    status = Path(f"/proc/{instance.worker(0)['pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(user.pw_uid)] * 4
    assert fields["Gid"].split() == [str(user.pw_gid)] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    instance.stop()


def test_the_tap_is_quiet_when_nobody_talks(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    # The kit's namespaces have no IPv6 at all; this one is like a host that has.
    instance.home.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0")
    instance.start()
    assert "inet6" not in instance.home.run("ip", "address", "show", instance.device)
    instance.stop()


@pytest.mark.parametrize("queues", [1, 2])
def test_the_tap_has_no_queueing_discipline(kit: Kit, queues: int) -> None:
    instance = on_tap(kit, queues)
    instance.start()
    shown = instance.home.run("tc", "qdisc", "show", "dev", instance.device).splitlines()
    assert [line.split()[1] for line in shown] == ["noqueue"]
    instance.stop()


@pytest.mark.parametrize("address", ["10.91.0.2", "fd00:91::2"])
def test_what_is_for_the_stack_never_takes_the_default_route(kit: Kit, address: str) -> None:
    instance = on_tap(kit, 1, ipv6=True)
    away = kit.namespace("a")
    instance.home.connect("out", away, "in")
    instance.home.run("sysctl", "-qw", "net.ipv6.conf.out.disable_ipv6=0")
    for command in (
        "address add 10.88.0.1/24 dev out",
        "-6 address add fd00:88::1/64 dev out nodad",
        "route add default via 10.88.0.2",
        "-6 route add default via fd00:88::2",
    ):
        instance.home.run("ip", *command.split())
    until(lambda: "tentative" not in instance.home.run("ip", "address"), "the addresses to be there")
    before = host(instance)
    assert " via " in instance.home.run("ip", "-o", "route", "get", address)
    instance.start()
    assert f"dev {instance.device}" in instance.home.run("ip", "-o", "route", "get", address)
    look = f"while :; do ip -o route get {address} 2>&1; done"
    watch = kit.spawn(instance.home, "sh", "-c", look)
    watch.said(f"dev {instance.device}")
    assert instance.call("restart").returncode == 0
    watch.kill_group()
    took = set(watch.output().splitlines())
    assert any("No route to host" in line or "unreachable" in line for line in took), took
    assert [line for line in took if " via " in line] == []
    # The same when the tap is gone in some other way.
    instance.home.run("ip", "link", "set", instance.device, "down")
    assert instance.home.try_run("ip", "-o", "route", "get", address).returncode != 0
    instance.stop()
    assert host(instance) == before


def refused(instance: Instance, *words: str, code: int = 69) -> None:
    """Assert that a start fails with these words, and changes nothing."""
    before = host(instance)
    done = instance.call("start", "-c", str(instance.config))
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "hint: " in done.stderr
    assert host(instance) == before


def test_a_subnet_in_use_is_refused(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.home.run("ip", "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy1")
    instance.home.run("ip", "link", "set", "dummy0", "up")
    instance.home.run("ip", "address", "add", "10.91.0.129/25", "dev", "dummy0")
    refused(instance, "10.91.0.0/24 overlaps 10.91.0.129/25 of dummy0", code=78)
    instance.home.run("ip", "address", "flush", "dev", "dummy0")
    instance.home.run("ip", "route", "add", "10.88.0.0/14", "dev", "dummy0")
    refused(instance, "10.91.0.2/24: the subnet overlaps the route 10.88.0.0/14 by dummy0")


def test_a_device_of_that_name_is_not_taken_over(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.home.run("ip", "tuntap", "add", "dev", instance.device, "mode", "tap")
    refused(instance, f"{instance.device}: a device of this name exists")
    assert instance.device in instance.home.run("ip", "link")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("ip address add 10.92.0.9/24 dev gzs", ("the kernel uses it as 10.92.0.9/24", "ip addr flush dev gzs")),
        ("ethtool -L gzs rx 1 tx 1", ("2 workers need 2 queues; the device has 1", "ethtool -L gzs rx 2 tx 2")),
        ("ip link set gzs mtu 4000", ("MTU 4000 is above what a port of driver af_xdp can", "ip link set gzs mtu")),
        ("ip link del gzs", ("port.device gzs: not in this machine",)),
    ],
)
def test_a_device_that_af_xdp_would_break_is_refused(kit: Kit, spoil: str, words: tuple[str, ...]) -> None:
    instance = on_veth(kit, 2)
    instance.home.run(*spoil.split())
    refused(instance, *words, code=78)


def test_a_device_with_another_xdp_program_is_refused(kit: Kit) -> None:
    instance = on_veth(kit, 1)
    instance.start()
    os.kill(instance.supervisor_pid(), signal.SIGKILL)
    os.kill(instance.worker(0)["pid"], signal.SIGKILL)
    until(lambda: instance.status()["state"] == "stopped", "the worker to be gone")
    shutil.rmtree(instance.run_dir)  # now nobody knows whose program that is
    for path in Path("/var/run/dpdk").glob(f"gz-{instance.name}-*"):
        shutil.rmtree(path)
    refused(instance, "gzs: another XDP program (id", "ip link set gzs xdp off")


def test_a_dead_worker_serves_again_within_a_second(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    victim = instance.worker(0)["pid"]
    os.kill(victim, signal.SIGKILL)
    died = time.monotonic()
    state = RunDir(instance.run_dir)

    def serves() -> bool:
        record = state.read_state()
        assert record is not None
        worker = record.workers[0]
        return worker.state == "running" and worker.process is not None and worker.process.pid != victim

    until(serves, "worker 0 to serve again")
    assert time.monotonic() - died < 1.0
    assert wait_running(instance, 0, victim)["restarts"] == 1
    instance.home.run("ping", "-c", "1", "-W", "2", instance.address)
    instance.stop()


def test_traffic_goes_on_without_a_supervisor_and_start_adopts(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    pids = [row["pid"] for row in instance.status()["workers"]]
    killed(instance)
    instance.home.run("ping", "-c", "1", "-W", "2", instance.address)
    instance.start()
    assert [row["pid"] for row in instance.status()["workers"]] == pids
    assert instance.status()["state"] == "running"
    instance.home.run("ping", "-c", "1", "-W", "2", instance.address)
    instance.stop()


@pytest.mark.parametrize("steps", [1, 4, 7, 10])
@pytest.mark.parametrize("command", ["recover", "start"])
def test_a_supervisor_killed_in_the_middle_of_a_start(kit: Kit, steps: int, command: str) -> None:
    instance = on_tap(kit, 2)
    before = host(instance)
    journal = instance.run_dir / "journal"
    starting = subprocess.Popen(
        instance.home.argv(*instance.argv("start", "-c", str(instance.config))), stderr=subprocess.PIPE, text=True
    )

    def reached() -> bool:
        try:
            return journal.read_bytes().count(b"\n") >= steps
        except FileNotFoundError:
            return starting.poll() is not None

    until(reached, f"{steps} lines in the journal")
    state = RunDir(instance.run_dir).read_state()
    assert state is not None
    os.kill(state.supervisor.pid, signal.SIGKILL)
    starting.communicate(timeout=30)
    if command == "start":
        instance.start()
        assert instance.status()["state"] == "running"
        instance.stop()
    else:
        assert instance.call("recover").returncode == 0
    assert host(instance) == before
