# SPDX-License-Identifier: MulanPSL-2.0
"""A machine's topology: read from its sysfs and procfs, and from the JSON a person brings from another machine."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from machines import machine, machines

from gazelled.base.errors import ConfigError
from gazelled.host.sysfs import Host
from gazelled.host.topology_probe import Netdev, kernel_netdevs, read_topology
from gazelled.planning.topology import Cpu, Hugepages, Memory, Nic, Topology, load_topology, parse_topology


class FakeHost:
    """A sysfs and procfs in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: object) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def cpu(self, number: int, core: int, socket: int, siblings: str) -> None:
        topology = f"sys/devices/system/cpu/cpu{number}/topology"
        self.write(f"{topology}/core_id", core)
        self.write(f"{topology}/physical_package_id", socket)
        self.write(f"{topology}/thread_siblings_list", siblings)

    def hugepages(self, node: int, size_kb: int, total: int, free: int) -> None:
        where = f"sys/devices/system/node/node{node}/hugepages/hugepages-{size_kb}kB"
        self.write(f"{where}/nr_hugepages", total)
        self.write(f"{where}/free_hugepages", free)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """Two nodes of two CPUs; CPU 3 offline, CPU 0 outside the cpuset; an igb NIC on node 1, a veth, a taken NIC."""
    fake = FakeHost(tmp_path)
    fake.write("sys/devices/system/cpu/online", "0-2")
    fake.write("sys/devices/system/cpu/possible", "0-7")
    for number in range(3):
        fake.cpu(number, number % 2, number // 2, str(number))
    (tmp_path / "sys/devices/system/cpu/cpu3").mkdir()
    fake.write("sys/devices/system/node/node0/cpulist", "0-1")
    fake.write("sys/devices/system/node/node1/cpulist", "2-3")
    for node in range(2):
        fake.write(
            f"sys/devices/system/node/node{node}/meminfo",
            f"Node {node} MemTotal:  1000 kB\nNode {node} MemFree:  300 kB\nNode {node} Inactive(file):  50 kB",
        )
        fake.hugepages(node, 2048, 8 * node, 4 * node)
    fake.write("proc/self/status", "Name:\tx\nCpus_allowed_list:\t1-3")
    fake.write("proc/meminfo", "MemTotal:  2000 kB\nMemAvailable:  900 kB")
    device = "sys/devices/pci0000:00/0000:03:00.0"
    fake.write(f"{device}/class", "0x020000")
    fake.write(f"{device}/numa_node", 1)
    fake.write(f"{device}/net/eth1/address", "02:00:00:00:00:01")
    fake.write(f"{device}/net/eth1/mtu", 9000)
    fake.write(f"{device}/net/eth1/type", 1)
    for queue in ("rx-0", "rx-1", "tx-0"):
        (tmp_path / device / "net/eth1/queues" / queue).mkdir(parents=True)
    taken = "sys/devices/pci0000:00/0000:03:00.1"
    fake.write(f"{taken}/class", "0x020000")
    fake.write(f"{taken}/numa_node", -1)
    for driver, function in (("igb", device), ("vfio-pci", taken)):
        (tmp_path / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True)
        os.symlink(tmp_path / f"sys/bus/pci/drivers/{driver}", tmp_path / function / "driver")
    (tmp_path / "sys/bus/pci/devices").mkdir()
    for function in (device, taken):
        os.symlink(tmp_path / function, tmp_path / "sys/bus/pci/devices" / Path(function).name)
    fake.write("sys/devices/virtual/net/veth0/address", "02:00:00:00:00:02")
    fake.write("sys/devices/virtual/net/veth0/mtu", 1500)
    fake.write("sys/devices/virtual/net/veth0/type", 1)
    fake.write("sys/devices/virtual/net/lo/type", 772)
    (tmp_path / "sys/class/net").mkdir(parents=True)
    for interface in (f"{device}/net/eth1", "sys/devices/virtual/net/veth0", "sys/devices/virtual/net/lo"):
        os.symlink(tmp_path / interface, tmp_path / "sys/class/net" / Path(interface).name)
    return fake


def test_a_host_is_read_from_its_sysfs_and_procfs(host: FakeHost) -> None:
    read = read_topology(
        Host(host.root), lambda names: {name: Netdev("veth", ("10.0.0.1/8",)) for name in names if name == "veth0"}
    )
    assert read == Topology(
        cpus=(
            Cpu(0, 0, 0, 0, online=True, allowed=False, siblings=(0,)),
            Cpu(1, 0, 1, 0, online=True, allowed=True, siblings=(1,)),
            Cpu(2, 1, 0, 1, online=True, allowed=True, siblings=(2,)),
            Cpu(3, 1, -1, -1, online=False, allowed=True, siblings=()),
        ),
        hugepages=(Hugepages(0, 2048, 0, 0), Hugepages(1, 2048, 8, 4)),
        nics=(
            Nic("eth1", "0000:03:00.0", 1, "igb", 2, "02:00:00:00:00:01", (), 9000, "ether"),
            Nic("veth0", "", -1, "veth", 0, "02:00:00:00:00:02", ("10.0.0.1/8",), 1500, "veth"),
            Nic("", "0000:03:00.1", -1, "vfio-pci", 0, "", ()),
        ),
        memory=(Memory(0, 1000, 350), Memory(1, 1000, 350)),
    )
    assert [cpu.id for cpu in read.usable] == [1, 2]


def test_a_kernel_without_numa_and_cpusets_has_one_node_and_allows_all(tmp_path: Path) -> None:
    fake = FakeHost(tmp_path)
    fake.cpu(0, 0, 0, "0")
    fake.write("proc/meminfo", "MemTotal:  2000 kB\nMemAvailable:  900 kB")
    fake.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 3)
    fake.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", 2)
    read = read_topology(Host(tmp_path))
    assert read.cpus == (Cpu(0, 0, 0, 0, online=True, allowed=True, siblings=(0,)),)
    assert (read.memory, read.hugepages) == ((Memory(0, 2000, 900),), (Hugepages(0, 2048, 3, 2),))


def test_this_machine_can_be_read_and_planned_for_elsewhere() -> None:
    read = read_topology(Host())
    assert {cpu.id for cpu in read.usable} == os.sched_getaffinity(0)
    assert parse_topology(read.to_json(), "x") == read


def test_the_kernel_tells_addresses_and_drivers_and_nothing_of_what_is_not_there() -> None:
    told = kernel_netdevs(["lo", "absent0"])
    assert "127.0.0.1/8" in told["lo"].addresses
    assert told["absent0"] == Netdev("", ())


@given(machines())
def test_a_topology_reads_back_from_its_json(topology: Topology) -> None:
    full = replace(
        topology,
        nics=(Nic("eth1", "0000:03:00.0", 1, "igb", 2, "02:00:00:00:00:01", ("10.0.0.1/8",), 9000, "ether"),),
        hugepages=(Hugepages(1, 2048, 8, 4),),
        memory=(Memory(0, 3, 2),),
    )
    assert parse_topology(full.to_json(), "x") == full


def test_a_file_with_only_the_documented_keys_is_enough() -> None:
    text = json.dumps(
        {
            "cpus": [{"id": 0, "numa": 0, "core": 0, "socket": 0, "online": True}],
            "hugepages": [{"numa": 0, "size_kb": 2048, "total": 0, "free": 0}],
            "nics": [
                {"name": "e", "pci": None, "numa": -1, "driver": "x", "queues": 1, "mac": "", "addresses": []},
            ],
        }
    )
    read = parse_topology(text, "x")
    assert (read.cpus[0].allowed, read.nics[0].pci, read.nics[0].mtu) == (True, "", 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{\n,", "t.json:2: not JSON: Expecting property name enclosed in double quotes"),
        ("[]", "t.json: must be an object with cpus, hugepages, nics, memory"),
        ("{}", "t.json: cpus: missing"),
        ('{"cpus": []}', "t.json: cpus: must have at least one entry"),
        ('{"cpus": 3}', "t.json: cpus: must be a list of objects"),
        ('{"cpus": [3]}', "t.json: cpus[0]: 3 must be an object"),
        ('{"cpus": [{"id": 0}]}', "t.json: cpus[0].numa: missing"),
        ('{"cpus": [{"id": "0", "numa": 0}]}', 't.json: cpus[0].id: "0" must be an integer'),
        ('{"cpus": [{"id": true, "numa": 0}]}', "t.json: cpus[0].id: true must be an integer"),
        ('{"cpus": [{"id": 0, "numa": 0, "online": 1}]}', "t.json: cpus[0].online: 1 must be true or false"),
        ('{"cpus": [{"id": 0, "numa": 0, "soket": 1}]}', 't.json: cpus[0].soket: unknown key (did you mean "socket"?)'),
        ('{"cpus": [{"id": 0, "numa": 0}], "nic": []}', 't.json: nic: unknown key (did you mean "nics"?)'),
        ('{"cpus": [{"id": 0, "numa": 0}, {"id": 0, "numa": 0}]}', "t.json: cpus[1].id: 0 is there twice"),
        ('{"cpus": [{"id": 0, "numa": 0}], "nics": [{"name": "e", "addresses": [1]}]}', "t.json: nics[0].addresses: "
         "[1] must be a list of strings"),
        ('{"cpus": [{"id": 0, "numa": 0}], "nics": [{"name": "e", "addresses": ["10.0.0"]}]}', "t.json: "
         'nics[0].addresses: "10.0.0" is no address'),
    ],
)  # fmt: skip
def test_a_mistake_in_a_topology_file_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_topology(text, "t.json")
    assert caught.value.problems == (told,)


def test_all_mistakes_in_a_topology_file_are_told_at_once() -> None:
    text = '{"cpus": [{"id": 0}, {"id": 1, "numa": "x"}], "hugepages": [{}]}'
    with pytest.raises(ConfigError) as caught:
        parse_topology(text, "t")
    assert len(caught.value.problems) == 6


def test_a_topology_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_topology(tmp_path / "absent")
    (tmp_path / "t").write_text(machine().to_json())
    assert load_topology(tmp_path / "t") == machine()
