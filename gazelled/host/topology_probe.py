# SPDX-License-Identifier: MulanPSL-2.0
"""Reads the topology of the machine at hand from sysfs and procfs; both lie under a root, so tests can show another."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from gazelled.base.cpulist import parse_cpus
from gazelled.host.sysfs import Host, Interface, read_driver, read_interfaces, read_nics
from gazelled.planning.topology import Cpu, Hugepages, Memory, Nic, Topology

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 0x3


@dataclass(frozen=True)
class Netdev:
    """What sysfs does not tell of an interface."""

    driver: str
    addresses: tuple[str, ...]


NetdevReader = Callable[[Iterable[str]], Mapping[str, Netdev]]


def read_topology(host: Host | None = None, netdevs: NetdevReader | None = None) -> Topology:
    """Read the machine: the real one, or what a fake root shows (then without addresses, unless `netdevs` has some)."""
    if host is None:
        host = Host.from_environment()
    if netdevs is None:
        netdevs = kernel_netdevs if host.root == Path("/") else _no_netdevs
    nodes = _nodes(host)
    return Topology(
        cpus=_cpus(host, nodes),
        hugepages=_hugepages(host, nodes),
        nics=_nics(host, netdevs),
        memory=_memory(host, nodes),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path, default: int) -> int:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else default


def _numbered(path: Path, prefix: str) -> list[int]:
    """Return the numbers of the entries prefix0, prefix1... of a directory."""
    try:
        names = [entry.name.removeprefix(prefix) for entry in path.iterdir() if entry.name.startswith(prefix)]
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isdigit())


def _nodes(host: Host) -> list[int]:
    """Return the NUMA nodes; a kernel without NUMA shows none and means node 0."""
    return _numbered(host.sys("devices/system/node"), "node") or [0]


def _cpus(host: Host, nodes: list[int]) -> tuple[Cpu, ...]:
    root = host.sys("devices/system/cpu")
    numa = {
        cpu: node for node in nodes for cpu in parse_cpus(_text(host.sys(f"devices/system/node/node{node}/cpulist")))
    }
    ids = _numbered(root, "cpu")
    online = set(parse_cpus(_text(root / "online"))) or set(ids)
    allowed = _allowed(host) or set(ids)
    return tuple(
        Cpu(
            id=cpu,
            numa=numa.get(cpu, nodes[0] if len(nodes) == 1 else -1),
            core=_number(root / f"cpu{cpu}/topology/core_id", -1),
            socket=_number(root / f"cpu{cpu}/topology/physical_package_id", -1),
            online=cpu in online,
            allowed=cpu in allowed,
            siblings=parse_cpus(_text(root / f"cpu{cpu}/topology/thread_siblings_list")),
        )
        for cpu in ids
    )


def _allowed(host: Host) -> set[int]:
    """Return the CPUs this process may use (its cpuset and affinity)."""
    for line in _text(host.proc("self/status")).splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return set(parse_cpus(line.partition(":")[2]))
    return set()


def read_hugepages(host: Host) -> tuple[Hugepages, ...]:
    """Read how many hugepages of which size each node has, and how many are free just now."""
    return _hugepages(host, _nodes(host))


def _hugepages(host: Host, nodes: list[int]) -> tuple[Hugepages, ...]:
    found = []
    for node in nodes:
        root = host.sys(f"devices/system/node/node{node}/hugepages")
        if not root.is_dir() and len(nodes) == 1:
            root = host.sys("kernel/mm/hugepages")
        for size in sorted(root.glob("hugepages-*kB")) if root.is_dir() else ():
            size_kb = int(size.name.removeprefix("hugepages-").removesuffix("kB"))
            total, free = _number(size / "nr_hugepages", 0), _number(size / "free_hugepages", 0)
            found.append(Hugepages(numa=node, size_kb=size_kb, total=total, free=free))
    return tuple(sorted(found, key=lambda pages: (pages.numa, pages.size_kb)))


def _meminfo(path: Path) -> dict[str, int]:
    """Return the kB values of /proc/meminfo or of a node's meminfo ("Node 0 MemTotal:  1 kB")."""
    values = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            values[name.split()[-1]] = int(value.split()[0])
    return values


def _memory(host: Host, nodes: list[int]) -> tuple[Memory, ...]:
    if len(nodes) == 1:
        values = _meminfo(host.proc("meminfo"))
        if "MemTotal" not in values:
            return ()
        return (Memory(nodes[0], values["MemTotal"], values.get("MemAvailable", values["MemTotal"])),)
    found = []
    for node in nodes:
        values = _meminfo(host.sys(f"devices/system/node/node{node}/meminfo"))
        if "MemTotal" in values:
            # A node does not say what is available; what is free or holds clean file pages nearly is.
            reclaimable = values.get("Inactive(file)", 0) + values.get("SReclaimable", 0)
            found.append(Memory(node, values["MemTotal"], values.get("MemFree", 0) + reclaimable))
    return tuple(found)


def _nics(host: Host, netdevs: NetdevReader) -> tuple[Nic, ...]:
    interfaces = [interface for interface in read_interfaces(host) if interface.kind != "loopback"]
    functions = read_nics(host)
    numa = {nic.pci: nic.numa for nic in functions}
    more = netdevs([interface.name for interface in interfaces])
    kernel = [_netdev(host, interface, numa, more.get(interface.name)) for interface in interfaces]
    taken = [
        Nic(name="", pci=nic.pci, numa=nic.numa, driver=nic.driver, queues=0, mac="", addresses=())
        for nic in functions
        if not nic.interfaces
    ]
    return tuple(kernel + taken)


def _netdev(host: Host, interface: Interface, numa: Mapping[str, int], more: Netdev | None) -> Nic:
    driver = (read_driver(host, interface.pci) if interface.pci else "") or (more.driver if more else "")
    return Nic(
        name=interface.name,
        pci=interface.pci,
        numa=numa.get(interface.pci, -1),
        driver=driver,
        queues=interface.queues,
        mac=interface.mac,
        addresses=more.addresses if more else (),
        mtu=interface.mtu,
        kind=driver if driver == "veth" else interface.kind,
    )


def _no_netdevs(_names: Iterable[str]) -> Mapping[str, Netdev]:
    return {}


def kernel_netdevs(names: Iterable[str]) -> Mapping[str, Netdev]:
    """Ask the kernel for addresses and for the drivers of virtual interfaces (sysfs does not say "veth")."""
    import psutil

    addresses: dict[str, list[str]] = {}
    for name, entries in psutil.net_if_addrs().items():
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6) and entry.netmask is not None:
                prefix = ip_address(entry.netmask).packed
                bits = sum(byte.bit_count() for byte in prefix)
                addresses.setdefault(name, []).append(f"{entry.address.partition('%')[0]}/{bits}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return {name: Netdev(_driver(probe, name), tuple(addresses.get(name, ()))) for name in names}


def _driver(probe: socket.socket, name: str) -> str:
    """Return an interface's driver as ethtool names it, empty if it does not say."""
    info = array.array("B", struct.pack("I192x", _ETHTOOL_GDRVINFO))
    try:
        fcntl.ioctl(probe, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), info.buffer_info()[0]))
    except OSError:
        return ""
    return info.tobytes()[4:36].partition(b"\0")[0].decode(errors="replace")
