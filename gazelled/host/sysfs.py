# SPDX-License-Identifier: MulanPSL-2.0
"""The state of network devices, read from sysfs and procfs under a root, so that tests can show it another host."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.printable import printable

DPDK_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
# These serve DPDK and the kernel's network at once: there is nothing to bind.
BIFURCATED_DRIVERS = ("mlx4_core", "mlx5_core", "mana")
_PCI = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NETWORK_CLASS = "0x02"
_BRIDGE_CLASS = "0x06"
_IFF_UP = 0x1


@dataclass(frozen=True)
class Host:
    """A host's sysfs and procfs: the real one, or a fake below `root`."""

    root: Path = Path("/")

    @classmethod
    def from_environment(cls) -> Host:
        """Return the host named by $GAZELLED_HOST_ROOT, which only tests set, else the real one."""
        return cls(Path(os.environ.get("GAZELLED_HOST_ROOT", "/")))

    @property
    def is_real(self) -> bool:
        """Say whether this is the host we run on."""
        return self.root == Path("/")

    def sys(self, path: str) -> Path:
        """Return a path below /sys."""
        return self.root / "sys" / path

    def proc(self, path: str) -> Path:
        """Return a path below /proc."""
        return self.root / "proc" / path


@dataclass(frozen=True)
class Interface:
    """A kernel network interface."""

    name: str
    pci: str  # its PCI function, empty for a virtual one
    dev_port: int  # tells interfaces of one PCI function apart
    mac: str
    mtu: int
    up: bool
    link: str  # operstate: up, down, lowerlayerdown, unknown...
    queues: int
    kind: str  # ether, tun, bridge, loopback, vlan...
    master: str  # bridge or bond it is a port of, else empty
    uppers: tuple[str, ...]  # interfaces made on top of it (VLANs, its bond or bridge)


@dataclass(frozen=True)
class Nic:
    """A PCI function that is a network device."""

    pci: str
    driver: str  # empty: none
    driver_override: str
    numa: int  # -1: the machine does not say
    vfs: int
    iommu_group: str  # empty: no IOMMU
    group_mates: tuple[str, ...]  # "0000:03:00.1 (e1000e)": what shares its IOMMU group with a kernel driver
    interfaces: tuple[Interface, ...]

    @property
    def label(self) -> str:
        """Name the NIC as a person would: its interface and PCI address."""
        names = ",".join(interface.name for interface in self.interfaces)
        return f"{names} ({self.pci})" if names else self.pci


def _text(path: Path) -> str:
    """Return a sysfs attribute without its newline; empty if absent or unreadable (a link that is down: EINVAL)."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path, default: int) -> int:
    try:
        return int(_text(path), 0)
    except ValueError:
        return default


def _entries(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _link_name(path: Path) -> str:
    """Return the last part of where a symbolic link points, empty if it is none."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def _kind(interface: Path) -> str:
    if (interface / "tun_flags").exists():
        return "tun"
    for line in _text(interface / "uevent").splitlines():
        if line.startswith("DEVTYPE="):
            return line.removeprefix("DEVTYPE=")
    return "loopback" if _text(interface / "type") == "772" else "ether"


def _pci_of(interface: Path) -> str:
    """Return the PCI function an interface hangs from, however many buses lie between (virtio has one), else empty."""
    parts = os.path.realpath(interface).split("/")
    return next((part for part in reversed(parts) if _PCI.fullmatch(part)), "")


def read_interface(host: Host, name: str) -> Interface:
    """Read one interface; what sysfs does not tell is empty or 0."""
    path = host.sys(f"class/net/{name}")
    entries = _entries(path)
    return Interface(
        name=name,
        pci=_pci_of(path),
        dev_port=_number(path / "dev_port", 0),
        mac=_text(path / "address"),
        mtu=_number(path / "mtu", 0),
        up=bool(_number(path / "flags", 0) & _IFF_UP),
        link=_text(path / "operstate") or "unknown",
        queues=sum(1 for queue in _entries(path / "queues") if queue.startswith("rx-")),
        kind=_kind(path),
        master=_link_name(path / "master"),
        uppers=tuple(entry.removeprefix("upper_") for entry in entries if entry.startswith("upper_")),
    )


def read_interfaces(host: Host) -> list[Interface]:
    """Read every interface of this network namespace, by name."""
    return [
        read_interface(host, name)
        for name in _entries(host.sys("class/net"))
        if (host.sys("class/net") / name).is_dir()
    ]


def read_driver(host: Host, pci: str) -> str:
    """Return the driver a PCI function is bound to, empty for none."""
    return _link_name(host.sys(f"bus/pci/devices/{pci}/driver"))


def _group_mates(host: Host, pci: str) -> tuple[str, ...]:
    """List what keeps a function's IOMMU group from being given away: mates with a driver that is not a DPDK one."""
    devices = host.sys(f"bus/pci/devices/{pci}/iommu_group/devices")
    mates = []
    for mate in _entries(devices):
        driver = read_driver(host, mate)
        bridge = _text(host.sys(f"bus/pci/devices/{mate}/class")).startswith(_BRIDGE_CLASS)
        if mate != pci and driver and driver not in DPDK_DRIVERS and not bridge:
            mates.append(f"{mate} ({driver})")
    return tuple(mates)


def _read(host: Host, pci: str, interfaces: list[Interface]) -> Nic:
    path = host.sys(f"bus/pci/devices/{pci}")
    override = _text(path / "driver_override")
    mine = sorted((each for each in interfaces if each.pci == pci), key=lambda each: (each.dev_port, each.name))
    return Nic(
        pci=pci,
        driver=read_driver(host, pci),
        driver_override="" if override == "(null)" else override,
        numa=_number(path / "numa_node", -1),
        vfs=_number(path / "sriov_numvfs", 0),
        iommu_group=_link_name(path / "iommu_group"),
        group_mates=_group_mates(host, pci),
        interfaces=tuple(mine),
    )


def read_nic(host: Host, pci: str) -> Nic | None:
    """Read one PCI function; None if it is not there (any more)."""
    if not host.sys(f"bus/pci/devices/{pci}").exists():
        return None
    return _read(host, pci, read_interfaces(host))


def read_nics(host: Host) -> list[Nic]:
    """Read every PCI network device, by address: those of the network class and those that carry an interface."""
    interfaces = read_interfaces(host)
    carrying = {interface.pci for interface in interfaces}
    devices = host.sys("bus/pci/devices")
    return [
        _read(host, pci, interfaces)
        for pci in _entries(devices)
        if pci in carrying or _text(devices / pci / "class").startswith(_NETWORK_CLASS)
    ]


def find_nic(host: Host, name: str) -> Nic:
    """Return the NIC a person named by interface or PCI address (without the domain too); else raise GazelledError."""
    nics = read_nics(host)
    wanted = name.lower()
    for nic in nics:
        if wanted in (nic.pci, nic.pci.removeprefix("0000:")) or name in (each.name for each in nic.interfaces):
            return nic
    if host.sys(f"class/net/{name}").exists():
        raise GazelledError(
            f"{name}: not a PCI device, so it has no driver to change",
            hint='a virtual interface is used as it is: driver = "af_xdp" or "af_packet"',
            exit_code=ExitCode.USAGE,
        )
    if _PCI.fullmatch(wanted) and any(
        host.sys(f"bus/pci/devices/{pci}").exists() for pci in (wanted, f"0000:{wanted}")
    ):
        raise GazelledError(
            f"{name}: a PCI device, but not a network device",
            hint="`gazelled nics` lists the NICs",
            exit_code=ExitCode.USAGE,
        )
    allowed = ", ".join(nic.label for nic in nics) or "none: this host has no PCI network device"
    raise GazelledError(
        f"{name}: no such NIC (this host's: {allowed})",
        hint="`gazelled nics` lists them with their use",
        exit_code=ExitCode.USAGE,
    )


def vfio_holders(host: Host, nic: Nic) -> list[str]:
    """List processes that have a NIC's vfio group open, as "pid (name)": unbinding it would wait for them for ever."""
    if not nic.iommu_group:
        return []
    wanted = {f"/dev/vfio/{nic.iommu_group}", f"/dev/vfio/noiommu-{nic.iommu_group}"}
    holders = []
    for pid in _entries(host.proc("")):
        if pid.isdigit():
            descriptors = host.proc(f"{pid}/fd")
            if any(_link_target(descriptors / fd) in wanted for fd in _entries(descriptors)):
                holders.append(f"{pid} ({printable(_text(host.proc(f'{pid}/comm'))) or 'unknown'})")
    return holders


def _link_target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
