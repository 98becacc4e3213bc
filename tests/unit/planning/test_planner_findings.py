# SPDX-License-Identifier: MulanPSL-2.0
"""What is wrong or doubtful about a plan is found, with its severity, its object and what to do."""

from dataclasses import replace

import pytest
from hypothesis import given
from machines import at_address, machine, machines, on_port, plain, split

from gazelled.config import BUILT_IN, Config
from gazelled.planning.findings import Finding
from gazelled.planning.topology import Hugepages, Memory, Nic, Topology
from gazelled.queue_planner import complete, plan


def nic(name: str = "eth1", pci: str = "", numa: int = -1, queues: int = 1, **more: object) -> Nic:
    return Nic(name, pci, numa, "x", queues, "02:00:00:00:00:01", **{"addresses": (), **more})  # type: ignore[arg-type]


def found(config: Config, topology: Topology) -> list[tuple[str, str]]:
    findings = plan(config, topology).findings
    assert all(finding.hint and finding.reason for finding in findings)
    return [(finding.severity, finding.object) for finding in findings]


def only(config: Config, topology: Topology) -> Finding:
    findings = plan(config, topology).findings
    assert len(findings) == 1, findings
    return findings[0]


def test_a_plain_plan_on_a_roomy_machine_has_nothing_to_say() -> None:
    assert found(plain([0, 1]), machine(cores=8)) == []


@given(machines())
def test_the_built_in_default_has_no_error_on_any_machine_with_a_usable_cpu(topology: Topology) -> None:
    made = plan(BUILT_IN, topology)
    assert bool(made.errors) == (not topology.usable)
    assert len(complete(BUILT_IN, topology).process[0].cpus) <= 2


def test_lists_of_unequal_length() -> None:
    made = plan(split(([0], [1, 2]), mbuf_count_per_conn=20), machine(cores=8))
    assert [(f.severity, f.object, f.reason) for f in made.findings] == [
        ("error", "process 0", "recv_cpus has 1 CPUs, send_cpus has 2")
    ]
    assert (made.num_cpu, made.num_queue) == (2, 4)
    assert [worker.cpu for worker in made.workers] == [0, 1, None, 2]


def test_a_cpu_used_twice_within_a_process() -> None:
    for config in (plain([0, 0]), plain([0, 0], idle="poll"), split(([0], [0]))):
        finding = only(config, machine(cores=8))
        assert (finding.severity, finding.object) == ("error", "cpu 0")
        assert "used 2 times within process 0" in finding.reason


def test_a_cpu_shared_by_processes_is_an_error_only_if_they_poll() -> None:
    assert found(plain([0, 1], [1, 2]), machine(cores=8)) == [("warning", "cpu 1")]
    assert found(plain([0, 1], [1, 2], idle="poll"), machine(cores=8)) == [("error", "cpu 1")]


@pytest.mark.parametrize(
    ("topology", "reason"),
    [
        (machine(cores=8, offline=[1]), "offline"),
        (machine(cores=8, forbidden=[1]), "outside the cpuset"),
        (replace(machine(), cpus=machine().cpus[:1] + machine().cpus[2:]), "not in this machine, which has 0,2-3"),
    ],
)
def test_a_cpu_that_cannot_be_used(topology: Topology, reason: str) -> None:
    finding = only(plain([0, 1]), topology)
    assert (finding.severity, finding.object) == ("error", "cpu 1")
    assert finding.reason == f"{reason} (wanted by gazellelstack01)"


def test_processes_must_have_equal_queues_and_one_form() -> None:
    assert found(plain([0, 1], [2]), machine(cores=8)) == [("error", "process 1")]
    mixed = replace(plain([0, 1]), process=plain([0, 1]).process + split(([2], [3])).process)
    finding = only(mixed, machine(cores=8))
    assert (finding.severity, finding.object) == ("error", "process 1")
    assert "mixed" in finding.reason
    assert [worker.queue_id for worker in plan(mixed, machine(cores=8)).workers] == [0, 1, 2, 3]


def test_33_queues_on_a_device_with_8() -> None:
    topology = replace(machine(cores=64), nics=(nic(queues=8),))
    made = plan(on_port(plain(range(33)), "af_xdp", "eth1"), topology)
    assert [(f.severity, f.object) for f in made.errors] == [("error", "port.device eth1")]
    assert made.errors[0].reason == "33 workers need 33 queues; the device has 8"
    assert len(made.workers) == 33


def test_an_instance_has_room_for_128_workers() -> None:
    assert plan(plain(range(128)), machine(cores=256)).errors == ()
    assert [f.object for f in plan(plain(range(129)), machine(cores=256)).errors] == ["instance"]


def test_an_xdp_device_must_have_as_many_queues_as_workers_and_no_addresses() -> None:
    config = on_port(plain([0]), "af_xdp", "eth1")
    spare = only(config, replace(machine(), nics=(nic(queues=4),)))
    assert (spare.severity, spare.hint) == ("error", "ethtool -L eth1 combined 1")
    veth = only(config, replace(machine(), nics=(nic(queues=4, kind="veth"),)))
    assert veth.hint == "ethtool -L eth1 rx 1 tx 1"
    used = only(config, replace(machine(), nics=(nic(addresses=("10.0.0.1/8", "fe80::1/64")),)))
    assert (used.severity, used.object) == ("error", "port.device eth1")
    assert "10.0.0.1/8" in used.reason
    assert "fe80" not in used.reason


def test_a_device_of_one_queue_serves_one_worker() -> None:
    for driver, device in (("af_packet", "eth1"), ("memif", "/run/memif.sock")):
        topology = replace(machine(), nics=(nic(queues=2),))
        assert found(on_port(plain([0, 1]), driver, device), topology) == [("error", f"port.driver {driver}")]


def test_pci_wants_a_function_per_worker() -> None:
    nics = (nic("", "0000:03:00.0", queues=0), nic("", "0000:03:00.1", queues=0))
    topology = replace(machine(), nics=nics)
    assert found(on_port(plain([0, 1]), "pci", "0000:03:00.0", "0000:03:00.1"), topology) == []
    finding = only(on_port(plain([0, 1]), "pci", "0000:03:00.0"), topology)
    assert finding.reason == "1 PCI function for 2 workers: a worker owns one"


def test_a_device_that_is_not_there() -> None:
    config = on_port(plain([0]), "af_xdp", "eth1")
    assert found(config, replace(machine(), nics=(nic("eth2"),))) == [("error", "port.device eth1")]
    assert found(config, machine()) == [("warning", "port.device eth1")]


def test_a_nic_on_another_node() -> None:
    topology = replace(machine(nodes=2), nics=(nic(numa=1, queues=2),))
    finding = only(on_port(plain([3, 4]), "af_xdp", "eth1"), topology)
    assert (finding.severity, finding.object) == ("warning", "gazellelstack00")
    functions = replace(topology, nics=(nic("", "0000:03:00.0", 0, 0), nic("", "0000:03:00.1", 1, 0)))
    assert found(on_port(plain([3, 4]), "pci", "0000:03:00.0", "0000:03:00.1"), functions) == []


def test_hyper_threads_of_one_core() -> None:
    topology = machine(cores=4, threads=2)
    finding = only(plain([1, 5]), topology)
    assert (finding.severity, finding.object) == ("warning", "cpus 1,5")
    told = replace(machine(), cpus=tuple(replace(cpu, siblings=(cpu.id & 2, cpu.id | 1)) for cpu in machine().cpus))
    assert found(plain([0, 1]), told) == [("warning", "cpus 0-1")]


def test_no_cpu_left_for_applications() -> None:
    assert found(plain([0, 1]), machine(cores=2)) == [("warning", "cpus")]
    assert found(plain([0, 1]), machine(cores=3)) == []
    assert found(plain([0, 1], app_exclude_cpus=(2,)), machine(cores=3)) == [("warning", "cpus")]


def test_a_raised_pool_says_what_would_not_need_raising() -> None:
    finding = only(plain([0], mbuf_count_per_conn=1), machine())
    assert (finding.severity, finding.object) == ("warning", "process 0")
    assert finding.hint.startswith("stack.mbuf_count_per_conn = 5,")
    assert found(plain([0], mbuf_count_per_conn=5), machine()) == []
    assert found(plain([0], mbuf_count_per_conn=4), machine()) == [("warning", "process 0")]


def test_memory_that_cannot_fit_or_is_short() -> None:
    topology = replace(machine(), memory=(Memory(0, 100 << 10, 50 << 10),))
    assert found(plain([0], mbuf_count_per_conn=100), topology) == [("error", "node 0")]
    assert found(plain([0]), topology) == [("warning", "node 0")]
    elsewhere = replace(machine(nodes=2), memory=(Memory(0, 1 << 30, 1 << 30), Memory(1, 1, 1)))
    assert found(plain([0]), elsewhere) == []
    huge = plan(plain([0], tcp_conn_count=10**7, mbuf_count_per_conn=10**4), machine())
    assert [f.object for f in huge.errors] == ["process 0"]


def test_hugepages_short_is_an_error_only_where_the_driver_needs_them() -> None:
    none = replace(machine(), nics=(nic("", "0000:03:00.0"), nic()), hugepages=(Hugepages(0, 2048, 0, 0),))
    some = replace(none, hugepages=(Hugepages(0, 2048, 8, 4), Hugepages(0, 1048576, 0, 0)))
    enough = replace(none, hugepages=(Hugepages(0, 2048, 64, 64),))
    pci, xdp = on_port(plain([0]), "pci", "0000:03:00.0"), on_port(plain([0]), "af_xdp", "eth1")
    assert [found(pci, each) for each in (none, some, enough)] == [[("error", "node 0")], [("error", "node 0")], []]
    assert [found(xdp, each) for each in (none, some, enough)] == [[("warning", "node 0")], [("warning", "node 0")], []]
    assert [found(plain([0]), each) for each in (none, some, enough)] == [[], [("warning", "node 0")], []]
    in_use = replace(none, hugepages=(Hugepages(0, 2048, 64, 4),))  # by this very instance, for example
    assert found(pci, in_use) == [("warning", "node 0")]
    short = plan(pci, some)
    wanted = short.host.hugepages[0].pages
    assert f"echo {8 + wanted - 4} > /sys/devices/system/node/node0/hugepages/hugepages-2048kB" in short.errors[0].hint


def test_an_mtu_above_what_the_port_or_the_device_can() -> None:
    topology = replace(machine(), nics=(nic(mtu=1500),))
    assert found(on_port(plain([0]), "af_xdp", "eth1", mtu=1500), topology) == []
    above_device = only(on_port(plain([0]), "af_xdp", "eth1", mtu=1600), topology)
    assert (above_device.severity, above_device.object) == ("error", "port.mtu")
    assert "ip link set eth1 mtu 1600" in above_device.hint
    assert found(on_port(plain([0]), "af_xdp", "eth1", mtu=3000), replace(topology, nics=(nic(mtu=1700),))) == [
        ("error", "port.mtu"),
        ("error", "port.mtu"),
    ]
    jumbo = only(on_port(plain([0]), "af_xdp", "eth1"), replace(topology, nics=(nic(mtu=9000),)))
    assert (jumbo.object, jumbo.hint) == ("port.device eth1", "ip link set eth1 mtu 1500")
    assert found(on_port(plain([0]), "tap", mtu=65535), machine()) == [("error", "port.mtu")]


def test_a_taps_subnet_must_be_its_own() -> None:
    topology = replace(machine(), nics=(nic("br0", addresses=("172.29.9.1/16", "fd00::1/64")),))
    finding = only(plain([0]), topology)
    assert (finding.severity, finding.object) == ("error", "network.host_addr")
    assert finding.reason == "172.29.0.0/24 overlaps 172.29.9.1/16 of br0"
    running = replace(machine(), nics=(nic("gz-default", kind="tun", addresses=("172.29.0.1/24",)),))
    assert found(plain([0]), running) == []
    assert found(on_port(plain([0]), "none"), topology) == []


def test_a_tap_needs_an_address_for_the_host_and_a_name_nobody_else_has() -> None:
    assert found(at_address(plain([0]), "10.0.0.1/32"), machine()) == [("error", "network.host_addr")]
    topology = replace(machine(), nics=(nic("eth1", kind="ether"),))
    assert found(on_port(plain([0]), "tap", "eth1"), topology) == [("error", "port.device eth1")]


def test_an_ipv6_subnet_that_the_host_has_already_is_an_error() -> None:
    config = plain([0])
    config = replace(config, network=replace(config.network, host_addr6="fd00:7::2/64"))
    other = machine()
    other = replace(other, nics=(nic("lan6", addresses=("fd00:7::9/64",)),))
    assert found(config, machine()) == []
    assert found(config, other) == [("error", "network.host_addr6")]


def test_errors_come_first() -> None:
    severities = [severity for severity, _ in found(plain([0, 0]), machine(cores=1))]
    assert severities == ["error", "warning"]
