# SPDX-License-Identifier: MulanPSL-2.0
"""One assignment decides queues, names, CPUs and memory; it holds for every machine and every configuration."""

import json
from dataclasses import replace
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import at_address, configs, machine, machines, on_port, plain, split

from gazelled.config import BUILT_IN, Config, PortConfig
from gazelled.planning.plan import Plan
from gazelled.planning.topology import Nic, Topology
from gazelled.queue_planner import RSS_KEY, complete, embedded_device, plan

_CASES = machines().flatmap(lambda topology: st.tuples(configs(topology), st.just(topology)))


@given(_CASES)
def test_queue_ids_number_the_workers_of_all_processes_without_gap(case: tuple[Config, Topology]) -> None:
    config, topology = case
    made = plan(config, topology)
    assert [worker.queue_id for worker in made.workers] == list(range(made.tot_queue_num))
    assert made.tot_queue_num == made.num_process * made.num_queue
    for worker in made.workers:
        assert worker.queue_id == worker.process_index * made.num_queue + worker.index
    assert [queue_id for group in made.groups for queue_id in group.queue_ids] == list(range(made.tot_queue_num))


@given(_CASES)
def test_mempool_and_rings_are_on_the_node_of_the_workers_cpu(case: tuple[Config, Topology]) -> None:
    config, topology = case
    for worker in plan(config, topology).workers:
        assert worker.cpu is not None
        assert worker.mempool.numa == worker.rings.numa == worker.numa == topology.cpu[worker.cpu].numa
        assert worker.mempool.name == f"rxtx_mbuf_{worker.queue_id}"


@given(_CASES)
def test_names_are_unique_also_in_the_fifteen_bytes_the_kernel_keeps(case: tuple[Config, Topology]) -> None:
    made = plan(*case)
    assert len({worker.name for worker in made.workers}) == made.tot_queue_num
    assert len({worker.comm for worker in made.workers}) == made.tot_queue_num
    assert all(0 < len(worker.comm.encode()) <= 15 for worker in made.workers)
    assert len(made.device.name.encode()) <= 15
    shortened = {worker.name for worker in made.workers if worker.comm != worker.name}
    assert shortened == {finding.object for finding in made.findings if finding.severity == "note"}
    assert all(len(name) > 15 for name in shortened)


@given(_CASES)
def test_every_flow_is_received_and_every_receiver_gets_some(case: tuple[Config, Topology]) -> None:
    made = plan(*case)
    receivers = {worker.queue_id for worker in made.workers if worker.role != "send"}
    assert len(made.reta) == 128
    assert set(made.reta) == receivers if len(receivers) <= 128 else set(made.reta) < receivers


@given(_CASES)
def test_pools_hold_the_formula_and_never_less_than_rings_can_hold_back(case: tuple[Config, Topology]) -> None:
    config, topology = case
    made = plan(config, topology)
    share = config.stack.tcp_conn_count * config.stack.mbuf_count_per_conn // made.num_queue
    held = config.port.rx_queue_size + config.port.tx_queue_size + config.stack.nic_read_number
    for worker in made.workers:
        assert worker.mempool.mbufs >= max(share, held)
        assert worker.mempool.mbufs == share or any("raised" in finding.reason for finding in made.findings)


@given(_CASES)
def test_applications_are_offered_only_cpus_on_the_workers_nodes_that_no_worker_uses(
    case: tuple[Config, Topology],
) -> None:
    config, topology = case
    made = plan(config, topology)
    taken = {worker.cpu for worker in made.workers}
    for group in made.groups:
        nodes = {made.workers[queue_id].numa for queue_id in group.queue_ids}
        for cpu in (topology.cpu[number] for number in group.app_cpus):
            assert cpu.id not in taken
            assert cpu.online
            assert cpu.allowed
            assert cpu.numa in nodes


@given(_CASES)
def test_a_plan_reads_back_from_its_json_and_equals_itself(case: tuple[Config, Topology]) -> None:
    made = plan(*case)
    assert Plan.from_json(made.to_json()) == made
    assert made.difference(plan(*case)) == []


def _ancestors_nodes(cpus: list[list[int]], topology: Topology) -> list[int]:
    """Return each queue's pool node by the ancestor's other formula: transposed, and from the primary's CPUs."""
    nodes = [-1] * (len(cpus) * len(cpus[0]))
    for process_index in range(len(cpus)):
        for cpu_index, cpu in enumerate(cpus[0]):
            nodes[cpu_index * len(cpus) + process_index] = topology.cpu[cpu].numa
    return nodes


@pytest.mark.parametrize(
    ("cpus", "remote"),
    [([[2, 3], [22, 23]], {2, 3}), ([[2, 22], [3, 23]], {1, 2})],
    ids=["a process per node", "each process on both nodes"],
)
def test_no_pool_is_remote_where_the_ancestors_two_formulas_leave_half_of_them_remote(
    cpus: list[list[int]], remote: set[int]
) -> None:
    topology = machine(nodes=2, cores=20)
    made = plan(plain(*cpus), topology)
    assert [worker.cpu for worker in made.workers] == cpus[0] + cpus[1]
    assert [worker.mempool.numa for worker in made.workers] == [worker.numa for worker in made.workers]
    ancestors = _ancestors_nodes(cpus, topology)
    assert {worker.queue_id for worker in made.workers if ancestors[worker.queue_id] != worker.numa} == remote
    assert made.errors == ()


@pytest.mark.parametrize("count", [1, 2, 8])
def test_one_process_has_a_worker_per_cpu(count: int) -> None:
    made = plan(plain(range(count)), machine(cores=16))
    assert (made.num_process, made.num_cpu, made.num_queue, made.tot_queue_num) == (1, count, count, count)
    assert not made.separate_send_recv
    assert [worker.name for worker in made.workers] == [f"gazellelstack{queue:02d}" for queue in range(count)]
    assert [worker.role for worker in made.workers] == ["both"] * count
    assert [worker.comm for worker in made.workers] == [worker.name for worker in made.workers]
    assert made.reta == tuple(entry % count for entry in range(128))
    assert made.errors == ()


@pytest.mark.parametrize("pairs", [1, 4])
def test_the_split_has_two_workers_per_pair_even_ones_receive(pairs: int) -> None:
    made = plan(split((range(pairs), range(4, 4 + pairs))), machine(cores=16))
    assert made.separate_send_recv
    assert (made.num_cpu, made.num_queue, made.tot_queue_num) == (pairs, 2 * pairs, 2 * pairs)
    for i, worker in enumerate(made.workers):
        kind = "send" if i % 2 else "recv"
        assert (worker.role, worker.name) == (kind, f"lstack_{kind}_0_{i // 2}")
        assert worker.cpu == i // 2 + (4 if i % 2 else 0)
    assert made.reta == tuple(2 * (entry % pairs) for entry in range(128))
    assert made.errors == ()


def test_names_too_long_for_the_kernel_are_kept_in_full_and_shortened_for_it() -> None:
    made = plan(split(*(([2 * p], [2 * p + 1]) for p in range(11))), machine(cores=32))
    tenth = made.workers[20]
    assert (tenth.process_index, tenth.name, tenth.comm) == (10, "lstack_recv_10_0", "gzrecv_10_0")
    assert [finding.object for finding in made.findings] == ["lstack_recv_10_0", "lstack_send_10_0"]
    assert {finding.severity for finding in made.findings} == {"note"}


def test_a_hundred_queues_have_names_that_fit_the_kernel() -> None:
    made = plan(plain(range(102)), machine(cores=128))
    assert (made.workers[100].name, made.workers[100].comm) == ("gazellelstack100", "gzstack100")


def test_without_a_process_two_cpus_of_one_node_and_different_cores_are_chosen() -> None:
    topology = machine(nodes=2, cores=2, threads=2, offline=[0])
    chosen = complete(BUILT_IN, topology).process[0].cpus
    assert chosen == (1, 4)  # 1 and 5 share a core, 2 and 3 are on the other node
    assert complete(BUILT_IN, machine(cores=1)).process[0].cpus == (0,)
    assert complete(BUILT_IN, machine(cores=4, forbidden=[0, 2])).process[0].cpus == (1, 3)


def test_the_embedded_tap_is_named_after_its_instance() -> None:
    made = plan(BUILT_IN, machine())
    assert (made.device.name, made.device.embedded, made.network.host_peer) == ("gz-default", True, "172.29.0.1")
    assert [(w.port.kind, w.port.device, w.port.queue) for w in made.workers] == [
        ("tap", "gz-default", 0),
        ("tap", "gz-default", 1),
    ]
    names = {embedded_device("a" * 31), embedded_device("a" * 30), embedded_device("a" * 12), embedded_device("b" * 13)}
    assert len(names) == 4
    assert max(map(len, names)) == 15


def test_a_mac_is_the_instances_own_local_and_unicast() -> None:
    macs = {
        plan(replace(BUILT_IN, stack=replace(BUILT_IN.stack, instance=name)), machine()).network.mac for name in "ab"
    }
    assert len(macs) == 2
    for mac in macs:
        assert mac is not None
        assert len(mac.split(":")) == 6
        assert mac.startswith("02:")


@pytest.mark.parametrize(
    ("host_addr", "gateway", "peer"),
    [
        ("10.1.2.3/24", None, "10.1.2.1"),
        ("10.1.2.1/24", None, "10.1.2.2"),
        ("10.1.2.3/24", "10.1.2.9", "10.1.2.9"),
        ("10.1.2.2/31", None, "10.1.2.3"),
        ("10.1.2.6/30", None, "10.1.2.5"),
    ],
)
def test_the_hosts_side_of_a_tap_gets_the_gateway_or_a_free_address(
    host_addr: str, gateway: str | None, peer: str
) -> None:
    assert plan(at_address(plain([0]), host_addr, gateway), machine()).network.host_peer == peer


@pytest.mark.parametrize(
    ("host_addr6", "gateway6", "peer6"),
    [
        ("fd00:1::2/64", None, "fd00:1::1"),
        ("fd00:1::1/64", None, "fd00:1::2"),
        ("fd00:1::0:2/64", "fd00:1::0:9", "fd00:1::9"),
    ],
)
def test_ipv6_is_there_when_it_has_an_address(host_addr6: str, gateway6: str | None, peer6: str) -> None:
    config = plain([0])
    assert plan(config, machine()).network.host_addr6 is None
    config = replace(config, network=replace(config.network, host_addr6=host_addr6, gateway_addr6=gateway6))
    network = plan(config, machine()).network
    assert network.host_addr6 == str(ip_interface(host_addr6).ip)
    assert (network.gateway6, network.host_peer6) == (peer6 if gateway6 else None, peer6)


def test_each_driver_binds_a_worker_to_what_it_owns() -> None:
    config, topology = plain([0, 1]), machine()
    xdp = plan(on_port(config, "af_xdp", "eth1"), topology)
    assert [worker.port.eal_args for worker in xdp.workers] == [
        ("--vdev=net_af_xdp0,iface=eth1,start_queue=0,queue_count=1",),
        ("--vdev=net_af_xdp0,iface=eth1,start_queue=1,queue_count=1",),
    ]
    assert (xdp.network.mac, xdp.network.host_peer) == (None, None)
    pci = plan(on_port(config, "pci", "0000:03:00.0", "0000:03:00.1"), topology)
    assert [worker.port.eal_args for worker in pci.workers] == [("-a", "0000:03:00.0"), ("-a", "0000:03:00.1")]
    assert [(step.pci, step.driver) for step in pci.host.bind] == [
        ("0000:03:00.0", "vfio-pci"),
        ("0000:03:00.1", "vfio-pci"),
    ]
    packet = plan(on_port(plain([0]), "af_packet", "eth1"), topology)
    assert packet.workers[0].port.eal_args == ("--vdev=net_af_packet0,iface=eth1",)
    assert plan(on_port(config, "none"), topology).workers[0].port.kind == "none"


def test_the_mtu_is_the_configurations_or_what_the_device_has() -> None:
    topology = replace(machine(), nics=(Nic("eth1", "", -1, "veth", 1, "", (), mtu=1400, kind="veth"),))
    config = on_port(plain([0]), "af_xdp", "eth1")
    assert (plan(config, topology).device.mtu, plan(config, topology).device.kind) == (1400, "veth")
    assert plan(on_port(plain([0]), "af_xdp", "eth1", mtu=1300), topology).device.mtu == 1300
    assert plan(plain([0]), topology).device.mtu == 1500


def test_the_rss_key_hashes_both_directions_alike() -> None:
    assert len(RSS_KEY) == 40
    assert RSS_KEY[:2] * 20 == RSS_KEY


def test_a_difference_says_what_start_would_do_otherwise_but_not_how_the_host_has_changed() -> None:
    topology = machine(cores=4)
    made = plan(plain([0, 1]), topology)
    assert made.difference(plan(plain([0, 2]), topology)) == ["groups[0].app_cpus[0]: 2 -> 1", "workers[1].cpu: 1 -> 2"]
    assert "workers: 2 entries -> 1" in made.difference(plan(plain([0]), topology))
    crowded = replace(topology, nics=(Nic("e", "", -1, "", 1, "", ("172.29.0.9/16",)),))
    assert plan(plain([0, 1]), crowded).findings != made.findings
    assert made.difference(plan(plain([0, 1]), crowded)) == []


def test_json_has_the_keys_others_read() -> None:
    data = json.loads(plan(plain([0]), machine()).to_json())
    assert data.keys() >= {"num_process", "num_cpu", "num_queue", "tot_queue_num", "separate_send_recv", "workers"}
    worker = data["workers"][0]
    assert worker.keys() >= {"process_index", "index", "queue_id", "role", "name", "cpu", "numa", "mempool"}
    assert worker["mempool"].keys() >= {"name", "mbufs", "numa"}
    assert all(finding.keys() == {"severity", "object", "reason", "hint"} for finding in data["findings"])


def test_small_pools_are_quick_to_create() -> None:
    for workers in (1, 2):
        made = plan(replace(BUILT_IN, process=plain(range(workers)).process), machine())
        assert all(worker.mempool.mbufs <= 16384 for worker in made.workers)
        assert PortConfig().rx_queue_size == 4096
