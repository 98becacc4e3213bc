# SPDX-License-Identifier: MulanPSL-2.0
"""A fake host for NIC tests: a sysfs tree and a network configuration below a root, and a kernel that changes them.

The kernel is played by the commands of `fake_commands` on PATH. It knows what tests need to notice a mistake: an
unbound NIC loses its interface with all that was configured on it, a driver takes only devices that match it and whose
driver_override agrees, a new interface is down and has the kernel's name, an interface that is up cannot be renamed,
addresses bring routes, and a route needs its interface up and its gateway reachable.
"""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

FOREVER = 4294967295
UP = 0x1
DPDK = ("vfio-pci", "uio_pci_generic")


class RefusedError(Exception):
    """The kernel's answer to a wish it does not grant."""


class FakeKernel:
    """The kernel of the fake host below `root`. All state is in files: each command is a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pci_devices = root / "sys/devices/pci0000:00"
        self.drivers = root / "sys/bus/pci/drivers"
        self.net = root / "sys/class/net"
        self._network = root / "network.json"
        self._hardware = root / "hardware.json"

    # Building a host, for tests.

    def create(self) -> None:
        """Make an empty host: a PCI bus, an IOMMU, no device."""
        for path in ("sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/class/net", "sys/module", "proc/net"):
            (self.root / path).mkdir(parents=True)
        self.save({})
        self._hardware.write_text("{}\n")

    def add_nic(self, pci: str, driver: str, kernel_name: str, mac: str, *, iommu_group: str = "") -> None:
        """Plug in a NIC that `driver` drives; it is bound and has an interface that is down."""
        device = self.pci_devices / pci
        device.mkdir(parents=True)
        for name, text in (("class", "0x020000"), ("driver_override", "(null)"), ("numa_node", "0")):
            (device / name).write_text(f"{text}\n")
        (self.root / "sys/bus/pci/devices" / pci).symlink_to(f"../../../devices/pci0000:00/{pci}")
        if iommu_group:
            group = self.root / "sys/kernel/iommu_groups" / iommu_group / "devices"
            group.mkdir(parents=True, exist_ok=True)
            (group / pci).symlink_to(f"../../../../devices/pci0000:00/{pci}")
            (device / "iommu_group").symlink_to(f"../../../kernel/iommu_groups/{iommu_group}")
        hardware = self.hardware()
        hardware[pci] = {"driver": driver, "name": kernel_name, "mac": mac}
        self._hardware.write_text(json.dumps(hardware, indent=1) + "\n")
        self.load(driver)
        self.bind(pci, driver)

    def hardware(self) -> dict[str, Entry]:
        found: dict[str, Entry] = json.loads(self._hardware.read_text())
        return found

    def snapshot(self) -> dict[str, str]:
        """Return every file, link and directory of the host with its content."""
        self.settle()
        found: dict[str, str] = {}
        for directory, directories, files in os.walk(self.root):
            for name in [*directories, *files]:
                path = Path(directory, name)
                key = str(path.relative_to(self.root))
                if path.is_symlink():
                    found[key] = f"-> {os.readlink(path)}"
                else:
                    found[key] = "directory" if path.is_dir() else path.read_text()
        return found

    # Drivers and modules.

    def settle(self) -> None:
        """Let written attributes read as a kernel shows them: an override of nothing as "(null)"."""
        for path in self.pci_devices.glob("*/driver_override"):
            if path.read_text().strip("\0\n") == "":
                path.write_text("(null)\n")

    def load(self, driver: str) -> None:
        (self.drivers / driver).mkdir(exist_ok=True)
        (self.root / "sys/module" / driver.replace("-", "_")).mkdir(exist_ok=True)

    def unload(self, driver: str) -> None:
        if any((self.drivers / driver).iterdir()):
            raise RefusedError(f"Module {driver} is in use")
        (self.drivers / driver).rmdir()
        (self.root / "sys/module" / driver.replace("-", "_")).rmdir()

    def driver(self, pci: str) -> str:
        link = self.pci_devices / pci / "driver"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else ""

    def unbind(self, pci: str) -> None:
        import shutil  # slow to load, and each command is a process

        driver = self.driver(pci)
        for interface in (self.pci_devices / pci / "net").glob("*"):
            (self.net / interface.name).unlink()
            network = self.network()
            del network[interface.name]
            self.save(network)
        shutil.rmtree(self.pci_devices / pci / "net", ignore_errors=True)
        (self.pci_devices / pci / "driver").unlink()
        (self.drivers / driver / pci).unlink()

    def bind(self, pci: str, driver: str) -> None:
        self.settle()
        device, made_for = self.pci_devices / pci, self.hardware()[pci]["driver"]
        override = (device / "driver_override").read_text().strip()
        wanted = override if override != "(null)" else made_for
        if self.driver(pci) or wanted != driver or not (self.drivers / driver).is_dir():
            raise RefusedError("No such device")
        if driver == "vfio-pci" and not (device / "iommu_group").is_symlink():
            raise RefusedError("Invalid argument")
        (device / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
        (self.drivers / driver / pci).symlink_to(f"../../../../devices/pci0000:00/{pci}")
        if driver not in DPDK:
            self._add_interface(pci)

    def _add_interface(self, pci: str) -> None:
        hardware = self.hardware()[pci]
        interface = self.pci_devices / pci / "net" / hardware["name"]
        for queue in ("rx-0", "rx-1", "tx-0", "tx-1"):
            (interface / "queues" / queue).mkdir(parents=True)
        attributes = {"address": hardware["mac"], "mtu": "1500", "flags": "0x1002", "operstate": "down"}
        for name, text in {**attributes, "dev_port": "0", "type": "1", "uevent": "IFINDEX=7"}.items():
            (interface / name).write_text(f"{text}\n")
        self._link(interface)
        network = self.network()
        network[interface.name] = {"addresses": [], "routes": []}
        self.save(network)

    def _link(self, interface: Path) -> None:
        (self.net / interface.name).symlink_to(os.path.relpath(interface, self.net))

    # The network.

    def network(self) -> dict[str, dict[str, list[Entry]]]:
        found: dict[str, dict[str, list[Entry]]] = json.loads(self._network.read_text())
        return found

    def save(self, network: dict[str, dict[str, list[Entry]]]) -> None:
        for interface in network.values():  # as a kernel shows routes: in the order of its table, not of their making
            interface["routes"].sort(
                key=lambda route: (route["family"], route["dst"], json.dumps(route, sort_keys=True))
            )
        temporary = self._network.with_suffix(".new")
        temporary.write_text(json.dumps(network, indent=1, sort_keys=True) + "\n")
        temporary.replace(self._network)

    def is_up(self, name: str) -> bool:
        return bool(int((self.net / name / "flags").read_text(), 16) & UP)

    def link_set(self, name: str, what: str, value: str) -> None:
        interface = self.net / name
        if not interface.exists():
            raise RefusedError(f'Cannot find device "{name}"')
        if what in ("up", "down"):
            self._set_up(name, what == "up")
        elif what == "name":
            if self.is_up(name):
                raise RefusedError("RTNETLINK answers: Device or resource busy")
            self._rename(name, value)
        elif what in ("mtu", "address"):
            (interface / what).write_text(f"{value}\n")
        else:
            raise RefusedError(f"the fake ip does not know `ip link set {what}`")

    def _set_up(self, name: str, up: bool) -> None:
        (self.net / name / "flags").write_text("0x1003\n" if up else "0x1002\n")
        (self.net / name / "operstate").write_text("up\n" if up else "down\n")
        network = self.network()
        interface = network[name]
        interface["routes"] = []
        if not up:
            interface["addresses"] = [each for each in interface["addresses"] if each["family"] == "inet"]
        elif not any(each["scope"] == "link" for each in interface["addresses"]):
            lifetimes = {"valid_life_time": FOREVER, "preferred_life_time": FOREVER}
            local = {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link", **lifetimes}
            interface["addresses"].append(local)
        self.save(network)
        for address in network[name]["addresses"] if up else ():
            self._add_connected_route(name, address)

    def _rename(self, name: str, new: str) -> None:
        if (self.net / new).exists():
            raise RefusedError("RTNETLINK answers: File exists")
        old = (self.net / name).resolve()
        (self.net / name).unlink()
        old.rename(old.with_name(new))
        self._link(old.with_name(new))
        network = self.network()
        network[new] = network.pop(name)
        self.save(network)

    def add_address(self, name: str, entry: Entry) -> None:
        network = self.network()
        if any(each["local"] == entry["local"] for each in network[name]["addresses"]):
            raise RefusedError("RTNETLINK answers: File exists")
        network[name]["addresses"].append(entry)
        self.save(network)
        if self.is_up(name):
            self._add_connected_route(name, entry)

    def _add_connected_route(self, name: str, address: Entry) -> None:
        if address.get("noprefixroute"):
            return
        subnet = ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network
        family = "-4" if address["family"] == "inet" else "-6"
        route = {"family": family, "dst": str(subnet), "dev": name, "protocol": "kernel", "flags": []}
        if route not in self.network()[name]["routes"]:
            self.add_route(name, route)

    def add_route(self, name: str, route: Entry) -> None:
        network = self.network()
        if not self.is_up(name):
            raise RefusedError("Error: Device for nexthop is not up.")
        if route in network[name]["routes"]:
            raise RefusedError("RTNETLINK answers: File exists")
        connected = [
            each["dst"] for each in network[name]["routes"] if "gateway" not in each and each["dst"] != "default"
        ]
        gateway = ipaddress.ip_address(route["gateway"]) if "gateway" in route else None
        if gateway is not None and not any(gateway in ipaddress.ip_network(subnet) for subnet in connected):
            raise RefusedError("Error: Nexthop has invalid gateway.")
        network[name]["routes"].append(route)
        self.save(network)
