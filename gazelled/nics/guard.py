# SPDX-License-Identifier: MulanPSL-2.0
"""What a NIC is in use for, and which of that forbids taking it from the kernel."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from gazelled.base.errors import GazelledError
from gazelled.host.sysfs import (
    BIFURCATED_DRIVERS,
    DPDK_DRIVERS,
    Host,
    Interface,
    Nic,
    read_interface,
    read_interfaces,
    read_nics,
)
from gazelled.nics.network import Network, cannot_restore

_SSH_PORT = 22
_ESTABLISHED = "01"


class Blocks(Enum):
    """How far a use stands in the way of a bind."""

    NOTHING = "nothing"  # comes back by undo
    UNLESS_FORCED = "unless forced"
    ALWAYS = "always"  # gazelled could not put it back


@dataclass(frozen=True)
class Use:
    """One thing a NIC is in use for, as the end of the sentence "eth0 ..."."""

    reason: str
    blocks: Blocks


def ssh_sessions(host: Host) -> dict[str, str]:
    """Return the local addresses of established ssh sessions, each with a peer's address: ours, and all on port 22."""
    sessions: dict[str, str] = {}
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = host.proc(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            address, _, port = fields[1].partition(":")
            if fields[3] == _ESTABLISHED and int(port, 16) == _SSH_PORT:
                sessions[_address(address)] = _address(fields[2].partition(":")[0])
    own = os.environ.get("SSH_CONNECTION", "").split()
    if len(own) == 4:
        sessions[own[2].partition("%")[0]] = own[0]
    return sessions


def _address(text: str) -> str:
    """Decode an address of /proc/net/tcp*: 32-bit words in hexadecimal, each in this machine's byte order."""
    words = [int(text[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(text), 8)]
    packed = b"".join(words)
    if len(packed) == 4:
        return str(ipaddress.IPv4Address(packed))
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _with_uppers(host: Host, interface: Interface) -> list[Interface]:
    """Return an interface, and all that is made on top of it: its traffic is theirs."""
    found: list[Interface] = []
    todo = [interface]
    while todo:
        each = todo.pop()
        if each.name not in (known.name for known in found):
            found.append(each)
            todo += [read_interface(host, upper) for upper in each.uppers]
    return found


def _interface_uses(host: Host, interface: Interface, network: Network, sessions: dict[str, str]) -> list[Use]:
    uses: list[Use] = []
    for each in _with_uppers(host, interface):
        through = "" if each is interface else f" (through {each.name})"
        routes = network.routes_of(each.name)
        if any(route.get("dst") == "default" and route.get("type", "unicast") == "unicast" for route in routes):
            uses.append(Use(f"carries the default route{through}", Blocks.UNLESS_FORCED))
        addresses = [str(entry["local"]) for entry in network.addresses.get(each.name, [])]
        uses += [
            Use(f"carries the ssh session from {sessions[address]} to {address}{through}", Blocks.UNLESS_FORCED)
            for address in addresses
            if address in sessions
        ]
    for upper in interface.uppers:
        if upper != interface.master:
            uses.append(Use(f"has {upper} on top of it, which would vanish", Blocks.ALWAYS))
    if interface.master:
        uses.append(Use(f"is a port of {interface.master}", Blocks.UNLESS_FORCED))
    for route in network.routes_of(interface.name):
        key = cannot_restore(route)
        if key is not None:
            uses.append(
                Use(f"has a route to {route.get('dst')} that gazelled cannot put back ({key})", Blocks.UNLESS_FORCED)
            )
    plain = _addresses(interface, network)
    if plain:
        uses.append(Use(f"has the address {', '.join(plain)}", Blocks.NOTHING))
    return uses


def nic_uses(host: Host, nic: Nic, network: Network) -> list[Use]:
    """Return all that a NIC is in use for; empty if nothing would miss it."""
    sessions = ssh_sessions(host)
    uses = [use for interface in nic.interfaces for use in _interface_uses(host, interface, network, sessions)]
    if nic.vfs:
        uses.append(Use(f"has {nic.vfs} virtual functions, which would vanish", Blocks.ALWAYS))
    if nic.driver and not nic.interfaces and nic.driver not in DPDK_DRIVERS:
        uses.append(
            Use(
                f"has the driver {nic.driver} but no interface here: it may be in another network namespace",
                Blocks.UNLESS_FORCED,
            )
        )
    return uses


def refuse_if_in_use(host: Host, nic: Nic, network: Network, *, force: bool, report: Callable[[str], None]) -> None:
    """Raise GazelledError with every reason not to take a NIC; with `force` only those nothing could put back count."""
    uses = nic_uses(host, nic, network)
    always = [use.reason for use in uses if use.blocks is Blocks.ALWAYS]
    forced = [use.reason for use in uses if use.blocks is Blocks.UNLESS_FORCED]
    if always or (forced and not force):
        hint = (
            "remove what is on top of it first"
            if always
            else ("take another NIC (`gazelled nics`), or `--force` if you can reach this machine another way")
        )
        raise GazelledError(f"{nic.label}: refused: it {' and '.join(always + forced)}", hint=hint)
    for reason in forced:
        report(f"{nic.label}: forced although it {reason}")


@dataclass(frozen=True)
class NicRow:
    """One line of `gazelled nics`, and one object of its JSON."""

    name: str
    pci: str
    driver: str
    numa: int | None
    queues: int
    mac: str
    addresses: tuple[str, ...]
    link: str
    in_use: tuple[str, ...]
    usable: str


def _addresses(interface: Interface, network: Network) -> tuple[str, ...]:
    """Return the addresses that were configured on an interface; the kernel adds link-local ones itself."""
    return tuple(
        f"{entry['local']}/{entry['prefixlen']}"
        for entry in network.addresses.get(interface.name, [])
        if entry.get("scope") != "link"
    )


def _usable(nic: Nic | None, interface: Interface | None, uses: list[Use], addresses: tuple[str, ...]) -> str:
    ways: list[str] = []
    blocks = {use.blocks for use in uses}
    if nic is not None and nic.driver in DPDK_DRIVERS:
        ways.append(f"pci (bound to {nic.driver})")
    elif nic is not None and nic.driver in BIFURCATED_DRIVERS:
        ways.append("pci as it is")
    elif nic is not None and Blocks.ALWAYS not in blocks:
        ways.append("pci by `bind --force`" if Blocks.UNLESS_FORCED in blocks else "pci after `bind`")
    if interface is not None and interface.kind == "ether" and not interface.master and Blocks.ALWAYS not in blocks:
        ways.append("af_xdp without its addresses" if addresses else "af_xdp")
    return ", ".join(ways) or "-"


def nic_rows(host: Host, network: Network) -> list[NicRow]:
    """Return a row for every PCI NIC, then one for every virtual interface but loopback."""
    sessions = ssh_sessions(host)
    rows: list[NicRow] = []
    for nic in read_nics(host):
        uses = nic_uses(host, nic, network)
        for interface in nic.interfaces or (None,):
            addresses = _addresses(interface, network) if interface else ()
            rows.append(
                NicRow(
                    interface.name if interface else "",
                    nic.pci,
                    nic.driver,
                    nic.numa if nic.numa >= 0 else None,
                    interface.queues if interface else 0,
                    interface.mac if interface else "",
                    addresses,
                    interface.link if interface else "",
                    tuple(use.reason for use in uses),
                    _usable(nic, interface, uses, addresses),
                )
            )
    for interface in read_interfaces(host):
        if not interface.pci and interface.kind != "loopback":
            uses = _interface_uses(host, interface, network, sessions)
            addresses = _addresses(interface, network)
            rows.append(
                NicRow(
                    interface.name,
                    "",
                    "",
                    None,
                    interface.queues,
                    interface.mac,
                    addresses,
                    interface.link,
                    tuple(use.reason for use in uses),
                    _usable(None, interface, uses, addresses),
                )
            )
    return rows
