# SPDX-License-Identifier: MulanPSL-2.0
"""Decides everything once: which worker, queue, CPU, mempool and device go together. Pure: no I/O, no clock, no chance.

Every number comes from one assignment of queue_ids, so that mempool, rings and CPU of a worker are always on one node:
`mempool.numa == rings.numa == numa(cpu)`. What is wrong or doubtful about a plan is judged in gazelled.planning.judge;
it is complete even then, as far as that is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_interface

from gazelled.configuration.settings import EVERYBODY, Config, ProcessConfig
from gazelled.planning import mempool
from gazelled.planning.judge import judge
from gazelled.planning.plan import (
    COMM_MAX,
    DevicePlan,
    GroupPlan,
    HostPlan,
    HugepagesPlan,
    MempoolPlan,
    NetworkPlan,
    NicBinding,
    Plan,
    PortBinding,
    RingsPlan,
    Role,
    SecurityPlan,
    StackPlan,
    WorkerPlan,
)
from gazelled.planning.topology import Cpu, Nic, Topology

__all__ = ["Plan", "complete", "plan"]

RETA_SIZE = 128
# The key under which both directions of a flow hash alike.
RSS_KEY = bytes.fromhex("6d5a" * 20)

DEVICE_MAX = 15  # bytes of an interface name

# Drivers whose memory must be hugepages; the others take ordinary pages if they must.
HUGEPAGE_DRIVERS = ("pci",)


def complete(config: Config, topology: Topology) -> Config:
    """Choose CPUs for a configuration without [[process]]: one process on up to two CPUs of this machine.

    The second is one that shares the first one's node but not its core, if there is such a CPU.
    """
    if config.process:
        return config
    usable = topology.usable or topology.cpus
    first = usable[0]

    def distance(cpu: Cpu) -> tuple[bool, bool, int]:
        return cpu.numa != first.numa, topology.core_of(cpu) == topology.core_of(first), cpu.id

    rest = sorted(usable[1:], key=distance)
    cpus = (first.id, rest[0].id) if rest else (first.id,)
    return replace(config, process=(ProcessConfig(cpus=cpus),))


def plan(config: Config, topology: Topology) -> Plan:
    """Return the whole plan with its findings; Plan.errors is empty if it can be started."""
    config = complete(config, topology)
    device = _device(config, topology)
    workers = tuple(_workers(config, topology, device))
    tot_queue_num = len(workers)
    first = config.process[0]
    split = first.split
    unjudged = Plan(
        instance=config.stack.instance,
        num_process=len(config.process),
        num_cpu=first.num_cpu,
        num_queue=first.num_queue,
        tot_queue_num=tot_queue_num,
        separate_send_recv=split,
        stack=_stack(config),
        device=device,
        network=_network(config, topology),
        security=_security(config),
        groups=tuple(_groups(config, topology, workers)),
        workers=workers,
        rss_key=RSS_KEY.hex(),
        reta=tuple(_reta(tot_queue_num, split)),
        host=_host(config, topology, workers),
        findings=(),
        metrics=config.metrics.listen,
    )
    return replace(unjudged, findings=tuple(judge(config, topology, unjudged)))


def _stack(config: Config) -> StackPlan:
    stack = config.stack
    return StackPlan(
        nic_read_number=stack.nic_read_number,
        rpc_number=stack.rpc_number,
        read_connect_number=stack.read_connect_number,
        idle="poll" if stack.idle == "poll" else "adaptive",
        spin_us=stack.spin_us,
        app_bind_numa=stack.app_bind_numa,
    )


def _security(config: Config) -> SecurityPlan:
    security = config.security
    everybody = EVERYBODY in security.allow_users
    return SecurityPlan(
        everybody=everybody,
        users=() if everybody else security.allow_users,
        groups=() if everybody else security.allow_groups,
        foreign_namespaces="listen" if security.foreign_namespaces == "listen" else "connect",
    )


def _device(config: Config, topology: Topology) -> DevicePlan:
    port = config.port
    embedded = port.driver == "tap" and not port.device
    name = embedded_device(config.stack.instance) if embedded else port.device[0] if port.device else ""
    # A tap is ours: what the topology says about one of that name is our own earlier doing.
    nic = topology.nic(name) if port.driver in ("af_xdp", "af_packet") else None
    mtu = port.mtu if port.mtu is not None else min(1500, nic.mtu) if nic and nic.mtu else 1500
    if port.uplink is not None:
        beside = topology.nic(port.uplink)
        mtu = beside.mtu if beside and beside.mtu else 1500
    return DevicePlan(port.driver, name, embedded, nic.kind if nic else "", mtu, port.uplink, port.past_firewall)


def embedded_device(instance: str) -> str:
    """Return the name of an instance's own tap: "gz-default", with a hash in place of what does not fit."""
    name = f"gz-{instance}"
    if len(name.encode()) <= DEVICE_MAX:
        return name
    return f"gz-{instance[:5]}-{sha256(instance.encode()).hexdigest()[:6]}"


def _network(config: Config, topology: Topology) -> NetworkPlan:
    if config.port.uplink is not None:
        return _uplink_network(topology.nic(config.port.uplink))
    own = IPv4Interface(config.network.host_addr)
    gateway = config.network.gateway_addr
    host_peer = mac = None
    if config.port.driver == "tap":
        host_peer = gateway or next((str(host) for host in own.network.hosts() if host != own.ip), None)
    if config.port.driver in ("tap", "none"):
        mac = _mac(config.stack.instance)
    made = NetworkPlan(str(own.ip), own.network.prefixlen, gateway, host_peer, mac)
    if config.network.host_addr6 is None:
        return made
    own6 = IPv6Interface(config.network.host_addr6)
    gateway6 = str(IPv6Address(config.network.gateway_addr6)) if config.network.gateway_addr6 else None
    host_peer6 = None
    if config.port.driver == "tap":
        host_peer6 = gateway6 or str(next(host for host in own6.network.hosts() if host != own6.ip))
    return replace(made, host_addr6=str(own6.ip), gateway6=gateway6, host_peer6=host_peer6)


def _uplink_network(nic: Nic | None) -> NetworkPlan:
    """Return the interface's own: its first address of each family that is not link-local, and its MAC.

    Without an IPv4 address "0.0.0.0" stands there, which is an error finding.
    """
    usable = [ip_interface(address) for address in (nic.addresses if nic else ())]
    own = next((each for each in usable if each.version == 4 and not each.is_link_local), IPv4Interface("0.0.0.0/32"))
    own6 = next((each for each in usable if each.version == 6 and not each.is_link_local), None)
    return NetworkPlan(
        host_addr=str(own.ip),
        prefix=own.network.prefixlen,
        gateway=None,
        host_peer=None,
        mac=nic.mac if nic else None,
        host_addr6=str(own6.ip) if own6 else None,
    )


def _mac(instance: str) -> str:
    """Return a locally administered unicast address that an instance keeps from start to start."""
    return ":".join(f"{byte:02x}" for byte in b"\x02" + sha256(b"gazelled mac " + instance.encode()).digest()[:5])


def _workers(config: Config, topology: Topology, device: DevicePlan) -> Iterator[WorkerPlan]:
    """Assign everything, in queue_id order: for equal processes queue_id is process_index * num_queue + index."""
    queue_id = 0
    for process_index, process in enumerate(config.process):
        mbufs = mempool.pool_mbufs(config, process.num_queue)
        for index in range(process.num_queue):
            role, name, comm = _identity(process, process_index, index, queue_id)
            cpu = _cpu(process, index)
            known = topology.cpu.get(cpu) if cpu is not None else None
            numa = known.numa if known is not None and known.numa >= 0 else None
            pool = MempoolPlan(
                f"rxtx_mbuf_{queue_id}", mbufs, numa, mbufs * mempool.mbuf_bytes(device.driver, device.mtu)
            )
            yield WorkerPlan(
                process_index=process_index,
                index=index,
                queue_id=queue_id,
                role=role,
                name=name,
                comm=comm,
                cpu=cpu,
                numa=numa,
                mempool=pool,
                rings=RingsPlan(config.port.rx_queue_size, config.port.tx_queue_size, numa),
                port=_binding(config, device, queue_id),
                memory=pool.bytes + mempool.WORKER_BYTES,
            )
            queue_id += 1


def _cpu(process: ProcessConfig, index: int) -> int | None:
    """Return the CPU of a worker; with the split, even workers receive and odd ones send."""
    if not process.split:
        return process.cpus[index]
    cpus = process.send_cpus if index % 2 else process.recv_cpus
    return cpus[index // 2] if index // 2 < len(cpus) else None


def _identity(process: ProcessConfig, process_index: int, index: int, queue_id: int) -> tuple[Role, str, str]:
    """Return role, name and comm. Where the name is too long for comm, the short form starts with what no name does."""
    role: Role
    if not process.split:
        role, name, short = "both", f"gazellelstack{queue_id:02d}", f"gzstack{queue_id}"
    elif index % 2:
        role, name, short = "send", f"lstack_send_{process_index}_{index // 2}", f"gzsend_{process_index}_{index // 2}"
    else:
        role, name, short = "recv", f"lstack_recv_{process_index}_{index // 2}", f"gzrecv_{process_index}_{index // 2}"
    return role, name, name if len(name.encode()) <= COMM_MAX else short


def _binding(config: Config, device: DevicePlan, queue_id: int) -> PortBinding:
    driver, name = config.port.driver, device.name
    if driver == "tap":
        return PortBinding("tap", name, queue_id, ())
    if driver == "none":
        return PortBinding("none", "", 0, ())
    if driver == "af_xdp":
        vdev = f"--vdev=net_af_xdp0,iface={name},start_queue={queue_id},queue_count=1"
        return PortBinding("ethdev", name, queue_id, (vdev,))
    if driver == "pci":
        functions = config.port.device
        function = functions[queue_id] if queue_id < len(functions) else ""
        return PortBinding("ethdev", function, 0, ("-a", function) if function else ())
    if driver == "af_packet":
        return PortBinding("ethdev", name, 0, (f"--vdev=net_af_packet0,iface={name}",))
    return PortBinding("ethdev", name, 0, (f"--vdev=net_memif0,role=client,id=0,socket={name},socket-abstract=no",))


def _reta(tot_queue_num: int, split: bool) -> Iterator[int]:
    """Spread the hash over all queues; with the split over the pairs, whose connection tables tell the two apart."""
    for entry in range(RETA_SIZE):
        yield 2 * (entry % (tot_queue_num // 2)) if split else entry % tot_queue_num


def _groups(config: Config, topology: Topology, workers: Iterable[WorkerPlan]) -> Iterator[GroupPlan]:
    mine: dict[int, list[WorkerPlan]] = {p: [] for p in range(len(config.process))}
    taken: set[int | None] = set(config.stack.app_exclude_cpus)
    for worker in workers:
        mine[worker.process_index].append(worker)
        taken.add(worker.cpu)
    idle: dict[int, list[int]] = {}
    for cpu in topology.usable:
        if cpu.id not in taken:
            idle.setdefault(cpu.numa, []).append(cpu.id)
    for process_index, group in mine.items():
        nodes = {worker.numa for worker in group if worker.numa is not None}
        app_cpus = sorted(cpu for node in nodes for cpu in idle.get(node, ()))
        yield GroupPlan(process_index, tuple(worker.queue_id for worker in group), tuple(app_cpus))


def _host(config: Config, topology: Topology, workers: Iterable[WorkerPlan]) -> HostPlan:
    bind: tuple[NicBinding, ...] = ()
    if config.port.driver == "pci":
        bind = tuple(NicBinding(pci, config.port.host_driver or "vfio-pci") for pci in config.port.device)
    return HostPlan(hugepages=tuple(_hugepages(config, topology, workers)), bind=bind)


def _hugepages(config: Config, topology: Topology, workers: Iterable[WorkerPlan]) -> Iterator[HugepagesPlan]:
    """Say what the workers of each node would use, where hugepages matter: DPDK's devices, or a host that has some."""
    required = config.port.driver in HUGEPAGE_DRIVERS
    need: dict[int, int] = {}
    for worker in workers:
        if worker.numa is not None:
            need[worker.numa] = need.get(worker.numa, 0) + worker.memory
    for numa, memory in sorted(need.items()):
        sizes = [pages for pages in topology.hugepages if pages.numa == numa]
        matters = config.port.driver not in ("tap", "none") or any(pages.total for pages in sizes)
        if sizes and matters:
            small = min(sizes, key=lambda pages: pages.size_kb)  # the size workers use
            yield HugepagesPlan(numa, small.size_kb, -(-memory // (small.size_kb << 10)), small.free, required)
