# SPDX-License-Identifier: MulanPSL-2.0
"""Judges a plan: what keeps it from being started, what works less well than it could, what is only good to know.

Each check yields findings about one kind of thing; their order here is the order a person reads them in, by severity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from itertools import groupby

from gazelled.base.cpulist import format_cpus
from gazelled.base.sizes import iec
from gazelled.configuration.settings import Config
from gazelled.planning import mempool
from gazelled.planning.findings import SEVERITIES, Finding, error, note, warning
from gazelled.planning.plan import COMM_MAX, HugepagesPlan, Plan, WorkerPlan
from gazelled.planning.topology import Nic, Topology

WORKERS_MAX = 128  # what the group page has room for
UPLINK_WORKERS_MAX = 64  # a bit each in the word of a port
TAP_MTU_MAX = 65521
# af_xdp puts 256 bytes of headroom of its own in front of a frame, and all must fit an mbuf's 2048; memif's buffers
# have 2048 too, and af_packet takes no more than plain Ethernet.
MTU_MAX = {"tap": TAP_MTU_MAX, "none": 65535, "pci": 9216, "memif": 2022, "af_packet": 1500, "af_xdp": 1774}
MBUFS_MAX = 2**31 - 1

_Check = Callable[[Config, Topology, Plan], Iterator[Finding]]


def judge(config: Config, topology: Topology, plan: Plan) -> list[Finding]:
    """Return all findings, errors first."""
    found = [finding for check in _CHECKS for finding in check(config, topology, plan)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _processes(config: Config, _topology: Topology, plan: Plan) -> Iterator[Finding]:
    first = config.process[0]
    for p, process in enumerate(config.process):
        if process.split and len(process.recv_cpus) != len(process.send_cpus):
            recv, send = len(process.recv_cpus), len(process.send_cpus)
            yield error(
                f"process {p}",
                f"recv_cpus has {recv} CPUs, send_cpus has {send}",
                "give both lists the same length: each pair is a recv and a send worker",
            )
        if process.split != first.split:
            yield error(
                f"process {p}",
                "send/recv split mixed with plain workers: queue_id = p * num_queue + i needs processes of one form",
                "give every [[process]] cpus, or every one recv_cpus and send_cpus",
            )
        elif process.num_queue != first.num_queue:
            yield error(
                f"process {p}",
                f"{process.num_queue} queues, but process 0 has {first.num_queue}: "
                "queue_id = p * num_queue + i needs equal ones",
                "give every [[process]] the same number of CPUs",
            )
    if plan.tot_queue_num > WORKERS_MAX:
        yield error(
            "instance",
            f"{plan.tot_queue_num} workers; an instance has at most {WORKERS_MAX}",
            "fewer CPUs, or several instances",
        )


def _cpus(config: Config, topology: Topology, plan: Plan) -> Iterator[Finding]:
    users: dict[int, list[WorkerPlan]] = {}
    for worker in plan.workers:
        if worker.cpu is not None:
            users.setdefault(worker.cpu, []).append(worker)
    known = format_cpus(topology.cpu)
    for number, workers in sorted(users.items()):
        cpu, names = topology.cpu.get(number), _names(workers)
        if cpu is None:
            yield error(
                f"cpu {number}",
                f"not in this machine, which has {known} (wanted by {names})",
                f"CPUs workers may use: {format_cpus(each.id for each in topology.usable)}",
            )
        elif not cpu.online:
            yield error(
                f"cpu {number}",
                f"offline (wanted by {names})",
                f"echo 1 > /sys/devices/system/cpu/cpu{number}/online, or another CPU",
            )
        elif not cpu.allowed:
            allowed = format_cpus(each.id for each in topology.usable)
            yield error(f"cpu {number}", f"outside the cpuset (wanted by {names})", f"this process may use {allowed}")
        yield from _sharing(config, number, workers)
    yield from _siblings(topology, plan)
    yield from _left_for_applications(config, topology, set(users))


def _sharing(config: Config, number: int, workers: list[WorkerPlan]) -> Iterator[Finding]:
    """Judge a CPU that several workers want."""
    for p, group in groupby(workers, key=lambda worker: worker.process_index):
        twice = list(group)
        if len(twice) > 1:
            yield error(
                f"cpu {number}",
                f"used {len(twice)} times within process {p} ({_names(twice)})",
                "give every worker of a process a CPU of its own",
            )
    processes = sorted({worker.process_index for worker in workers})
    if len(processes) > 1:
        which = "processes " + ", ".join(map(str, processes))
        if config.stack.idle == "poll":
            yield error(
                f"cpu {number}",
                f'shared by {which}, and with idle = "poll" each would take all of it',
                'give each a CPU of its own, or set idle = "adaptive"',
            )
        else:
            yield warning(
                f"cpu {number}",
                f"shared by {which} ({_names(workers)}): each waits for the other under load",
                "give each a CPU of its own",
            )


def _siblings(topology: Topology, plan: Plan) -> Iterator[Finding]:
    cores: dict[object, dict[int, WorkerPlan]] = {}
    for worker in plan.workers:
        cpu = topology.cpu.get(worker.cpu) if worker.cpu is not None else None
        if cpu is not None:
            cores.setdefault(topology.core_of(cpu), {})[cpu.id] = worker
    for users in cores.values():
        if len(users) > 1:
            yield warning(
                f"cpus {format_cpus(users)}",
                f"hyper-threads of one core: {_names(users.values())} share it",
                "use one CPU per core",
            )


def _left_for_applications(config: Config, topology: Topology, used: set[int]) -> Iterator[Finding]:
    left = {cpu.id for cpu in topology.usable} - used - set(config.stack.app_exclude_cpus)
    if not left:
        yield warning(
            "cpus",
            f"no CPU is left for applications: workers use {format_cpus(used)}"
            + (
                f", stack.app_exclude_cpus {format_cpus(config.stack.app_exclude_cpus)}"
                if config.stack.app_exclude_cpus
                else ""
            ),
            "fine for a try; for speed leave them a CPU that no worker uses",
        )


def _pools(config: Config, _topology: Topology, plan: Plan) -> Iterator[Finding]:
    for group in plan.groups:
        if not group.queue_ids:
            continue
        pool = plan.workers[group.queue_ids[0]].mempool
        formula = mempool.formula_mbufs(config, len(group.queue_ids))
        if pool.mbufs > MBUFS_MAX:
            yield error(
                f"process {group.process_index}",
                f"{pool.mbufs} mbufs in a pool; at most {MBUFS_MAX}",
                "lower stack.tcp_conn_count or stack.mbuf_count_per_conn",
            )
        elif pool.mbufs > formula:
            enough = -(-pool.mbufs * len(group.queue_ids) // config.stack.tcp_conn_count)
            yield warning(
                f"process {group.process_index}",
                f"pools raised from {formula} to {pool.mbufs} mbufs per "
                "worker: rings, burst and caches hold that many back",
                f"stack.mbuf_count_per_conn = {enough}, or smaller port.rx_queue_size and port.tx_queue_size",
            )


def _memory(config: Config, topology: Topology, plan: Plan) -> Iterator[Finding]:
    hint = "lower stack.tcp_conn_count, stack.mbuf_count_per_conn or the number of workers"
    for memory in topology.memory:
        need = sum(worker.memory for worker in plan.workers if worker.numa == memory.numa)
        total, available = memory.total_kb << 10, memory.available_kb << 10
        if need > total:
            yield error(f"node {memory.numa}", f"workers need {iec(need)}; the node has {iec(total)}", hint)
        elif need > available:
            yield warning(f"node {memory.numa}", f"workers need {iec(need)}; {iec(available)} is available", hint)
    for pages in plan.host.hugepages:
        yield from _hugepages(topology, pages)


def _hugepages(topology: Topology, pages: HugepagesPlan) -> Iterator[Finding]:
    if pages.free >= pages.pages:
        return
    reason = f"{pages.pages} hugepages of {iec(pages.size_kb << 10)} wanted, {pages.free} free"
    total = next(e.total for e in topology.hugepages if (e.numa, e.size_kb) == (pages.numa, pages.size_kb))
    hint = (
        f"echo {total + pages.pages - pages.free} > /sys/devices/system/node/node{pages.numa}"
        f"/hugepages/hugepages-{pages.size_kb}kB/nr_hugepages"
    )
    if not pages.required:
        yield warning(f"node {pages.numa}", f"{reason}: the workers take ordinary pages, which is slower", hint)
    elif total < pages.pages:
        yield error(f"node {pages.numa}", f"{reason}, {total} in all", hint)
    else:  # it may be this very instance that uses them
        yield warning(f"node {pages.numa}", f"{reason}: the others are in use", hint)


def _devices(config: Config, topology: Topology, plan: Plan) -> Iterator[Finding]:
    driver, total = config.port.driver, plan.tot_queue_num
    if driver in ("af_packet", "memif") and total > 1:
        yield error(f"port.driver {driver}", f"one queue for {total} workers", "one CPU, or another driver")
    if driver == "pci" and len(config.port.device) != total:
        count = len(config.port.device)
        yield error(
            "port.device",
            f"{count} PCI function{'s' * (count != 1)} for {total} workers: a worker owns one",
            'list as many functions (NICs or VFs) as there are workers: device = ["0000:03:00.0", "0000:03:00.1"]',
        )
    if driver in ("af_xdp", "af_packet", "pci"):
        for i, device in enumerate(config.port.device):
            nic = topology.nic(device)
            if nic is None:
                yield from _missing(device, topology)
            else:
                workers = plan.workers[i : i + 1] if driver == "pci" and len(config.port.device) > 1 else plan.workers
                yield from _queues(driver, device, nic, len(workers))
                yield from _nic_node(device, nic, workers)
    yield from _mtu(config, topology, plan)


def _missing(device: str, topology: Topology) -> Iterator[Finding]:
    names = ", ".join(nic.name or nic.pci for nic in topology.nics)
    if topology.nics:
        yield error(
            f"port.device {device}", f"not in this machine, which has {names}", "`gazelled nics` lists the NICs"
        )
    else:
        yield warning(
            f"port.device {device}",
            "the topology has no NICs: queues, node and MTU are unchecked",
            "use a topology printed by `gazelled topology`",
        )


def _queues(driver: str, device: str, nic: Nic, wanted: int) -> Iterator[Finding]:
    channels = f"ethtool -L {device} " + (f"rx {wanted} tx {wanted}" if nic.kind == "veth" else f"combined {wanted}")
    if nic.queues and wanted > nic.queues:
        more = f", or if the device can have more: {channels}" if driver == "af_xdp" else ""
        yield error(
            f"port.device {device}",
            f"{wanted} workers need {wanted} queues; the device has {nic.queues}",
            f"at most {nic.queues} CPUs in all processes{more}",
        )
    elif driver == "af_xdp" and nic.queues > wanted:
        yield error(
            f"port.device {device}",
            f"{nic.queues} queues for {wanted} workers: packets of a queue without a worker are lost",
            channels,
        )
    if driver == "af_xdp":
        routable = [address for address in nic.addresses if not ip_interface(address).is_link_local]
        if routable:
            yield error(
                f"port.device {device}",
                f"the kernel uses it as {', '.join(routable)} and would lose its packets",
                f"another device, or ip addr flush dev {device} scope global",
            )


def _nic_node(device: str, nic: Nic, workers: tuple[WorkerPlan, ...]) -> Iterator[Finding]:
    if nic.numa < 0:
        return
    for worker in workers:
        if worker.numa is not None and worker.numa != nic.numa:
            yield warning(
                worker.name,
                f"cpu {worker.cpu} is on node {worker.numa}, {device} on node {nic.numa}",
                f"a CPU of node {nic.numa}",
            )


def _mtu(config: Config, topology: Topology, plan: Plan) -> Iterator[Finding]:
    driver, mtu, limit = config.port.driver, plan.device.mtu, MTU_MAX[config.port.driver]
    if mtu > limit:
        yield error("port.mtu", f"{mtu} is above what a port of driver {driver} can: {limit}", f"port.mtu = {limit}")
    nic = topology.nic(plan.device.name) if driver in ("af_xdp", "af_packet") else None
    if nic is not None and nic.mtu:
        line = f"ip link set {plan.device.name} mtu {min(max(mtu, 576), limit)}"
        if mtu > nic.mtu:
            yield error("port.mtu", f"{mtu} is above the device's own MTU, {nic.mtu}", f"leave it out, or: {line}")
        elif nic.mtu > limit:
            yield error(
                f"port.device {plan.device.name}",
                f"MTU {nic.mtu} is above what a port of driver {driver} can: {limit}",
                line,
            )


def _uplink(config: Config, topology: Topology, plan: Plan) -> Iterator[Finding]:
    """Check the interface beside whose kernel the stack is to serve."""
    name = config.port.uplink
    if name is None:
        return
    nic = topology.nic(name)
    if nic is None:
        names = ", ".join(each.name for each in topology.nics if each.name) or "none"
        yield error(f"port.uplink {name}", f"not in this machine, which has {names}", "`ip link` lists the interfaces")
        return
    if plan.network.host_addr == "0.0.0.0":  # noqa: S104  no address at all
        yield error(
            f"port.uplink {name}",
            "has no IPv4 address that the stack could share",
            f"ip addr add ADDRESS/PREFIX dev {name}, or a stack with an address of its own (no port.uplink)",
        )
    if plan.tot_queue_num > UPLINK_WORKERS_MAX:
        yield error(
            f"port.uplink {name}",
            f"{plan.tot_queue_num} workers; at most {UPLINK_WORKERS_MAX} share an uplink",
            "fewer CPUs in all processes",
        )
    yield note(
        f"port.uplink {name}",
        "packets for ports of the stack do not pass the host's netfilter rules; "
        "everything for other ports is the kernel's",
        "`gazelled stop` takes the programs away again",
    )


def _addresses(config: Config, topology: Topology, plan: Plan) -> Iterator[Finding]:
    """Check that the tap's subnet is its own: whatever else on the host has it would lose its packets to the tap."""
    if config.port.driver != "tap" or config.port.uplink is not None:
        return
    own = IPv4Interface(config.network.host_addr)
    own6 = IPv6Interface(config.network.host_addr6) if config.network.host_addr6 else None
    if plan.network.host_peer is None:
        yield error(
            "network.host_addr",
            f"{own.network} has no address for the host's side of the tap",
            "a prefix of /30 or shorter",
        )
    for nic in topology.nics:
        if nic.name == plan.device.name:
            if nic.kind not in ("tun", ""):
                yield error(f"port.device {nic.name}", f"exists and is no tap ({nic.kind})", "another name, or none")
            continue
        for address in nic.addresses:
            other = ip_interface(address)
            if isinstance(other, IPv4Interface) and other.network.overlaps(own.network):
                yield error(
                    "network.host_addr",
                    f"{own.network} overlaps {address} of {nic.name}",
                    "a subnet that nothing on this host uses, as 172.30.0.2/24",
                )
            if own6 is not None and isinstance(other, IPv6Interface) and other.network.overlaps(own6.network):
                yield error(
                    "network.host_addr6",
                    f"{own6.network} overlaps {address} of {nic.name}",
                    "a subnet that nothing on this host uses, as fd00:30::2/64",
                )


def _short_names(_config: Config, _topology: Topology, plan: Plan) -> Iterator[Finding]:
    for worker in plan.workers:
        if worker.comm != worker.name:
            yield note(
                worker.name,
                f"too long for the kernel's {COMM_MAX} bytes: there it is {worker.comm}",
                "its command line (ps -f) and all of gazelled's output have the full name",
            )


_CHECKS: tuple[_Check, ...] = (_processes, _cpus, _pools, _memory, _devices, _uplink, _addresses, _short_names)


def _names(workers: Iterable[WorkerPlan]) -> str:
    names = [worker.name for worker in workers]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
