# SPDX-License-Identifier: MulanPSL-2.0
"""The kernel's network settings that gazelled reads and changes: links, addresses, routes, XDP programs, taps.

The only user of pyroute2, which is loaded at the first question: it takes longer to load than most commands to run.
What is asked for a device that is not there raises GazelledError, except where a function says otherwise.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gazelled.base.errors import GazelledError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

TUN_DEVICE = Path("/dev/net/tun")

_IFF_UP = 0x1
_SCOPE_GLOBAL = 0
_TABLE_LOCAL = 255
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_PERSIST = 0x2, 0x100, 0x1000, 0x4000, 0x800
TAP_FLAGS = _IFF_TAP | _IFF_MULTI_QUEUE | _IFF_NO_PI | _IFF_VNET_HDR
_TAP_QUEUE = 8192  # frames, per queue
_ADDR_GEN_NONE = 1
_TC_ROOT = 0xFFFFFFFF
_NF_IN = (0, 1)  # the hooks prerouting and input
_NF_DROP = 0
_NFT_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_CLSACT_INGRESS, _CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
_IFA_F_NODAD = 0x02
_IFA_F_UNSURE = 0x40 | 0x08  # tentative, or found to be another's
_ADDRESS_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, IPV4_IFADDR, IPV6_IFADDR
_RTN_UNREACHABLE = 7
_RTPROT = 0x47  # marks our routes
_LAST_METRIC = 0xFFFFFFFE  # of all routes to a subnet, ours is the one that is left when no other is


@dataclass(frozen=True)
class Link:
    """One network device."""

    index: int
    name: str
    up: bool
    mtu: int
    kind: str  # "veth", "tun", ...; empty for hardware
    alias: str
    xdp: int | None  # id of the XDP program attached to it


@contextmanager
def _rtnetlink() -> Iterator[IPRoute]:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as rtnetlink:
        try:
            yield rtnetlink
        except NetlinkError as error:
            raise GazelledError(f"the kernel refused: {error.args[-1]}") from error


def read_link(name: str) -> Link | None:
    """Return what a device is like, None if there is no such device."""
    try:
        with _rtnetlink() as rtnetlink:
            found = rtnetlink.link_lookup(ifname=name)
            message = rtnetlink.get_links(found[0])[0] if found else None
    except GazelledError:
        return None  # it went away between the two questions
    if message is None:
        return None
    info, xdp = message.get_attr("IFLA_LINKINFO"), message.get_attr("IFLA_XDP")
    return Link(
        index=message["index"],
        name=name,
        up=bool(message["flags"] & _IFF_UP),
        mtu=message.get_attr("IFLA_MTU"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        alias=message.get_attr("IFLA_IFALIAS") or "",
        xdp=xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else None,
    )


def addresses(name: str) -> list[str]:
    """Return a device's addresses, as "192.0.2.1/24"; none for a device that is not there."""
    with _rtnetlink() as rtnetlink:
        found = rtnetlink.link_lookup(ifname=name)
        messages = list(rtnetlink.get_addr(index=found[0])) if found else []
    return [_address_text(message) for message in messages]


def own_addresses(name: str) -> list[str]:
    """Return the addresses, without prefix, that the kernel serves at a device: none it still seeks twins of."""
    with _rtnetlink() as rtnetlink:
        found = rtnetlink.link_lookup(ifname=name)
        messages = list(rtnetlink.get_addr(index=found[0])) if found else []
    return [
        _address_text(message).partition("/")[0]
        for message in messages
        if not (message.get_attr("IFA_FLAGS") or message["flags"]) & _IFA_F_UNSURE
    ]


def address_events() -> socket.socket:
    """Return a socket that becomes readable whenever addresses or links change. What it says is not for reading."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    events.bind((0, _ADDRESS_GROUPS))
    return events


def overlap(subnet: IPv4Network | IPv6Network, but: str) -> str | None:
    """Say which route or address of the kernel overlaps `subnet`, not counting the device `but`; None if none does."""
    family = int(socket.AF_INET if subnet.version == 4 else socket.AF_INET6)
    with _rtnetlink() as rtnetlink:
        names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in rtnetlink.get_links()}
        addresses = [
            (names.get(message["index"], "?"), _address_text(message)) for message in rtnetlink.get_addr(family=family)
        ]
        routes = [message for message in rtnetlink.get_routes(family=family) if message["dst_len"] > 0]
    for device, address in addresses:
        if device != but and subnet.overlaps(ip_interface(address).network):
            return f"the address {address} of {device}"
    for message in routes:
        device = names.get(message.get_attr("RTA_OIF"), "no device")
        route = ip_network(f"{message.get_attr('RTA_DST')}/{message['dst_len']}")
        if device == but or message.get_attr("RTA_TABLE") == _TABLE_LOCAL or message["proto"] == _RTPROT:
            continue
        if subnet.overlaps(route):
            return f"the route {route} by {device}"
    return None


def _address_text(message: Any) -> str:  # noqa: ANN401  pyroute2 has no types
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return f"{ip_address(address)}/{message['prefixlen']}"


def create_tap(name: str, alias: str, mtu: int) -> None:
    """Make a persistent multi-queue tap with vnet headers, which root alone may open; nothing if there is one already.

    It must have an owner: any user who may open /dev/net/tun may open a queue of a tap without one.
    It carries `alias`, and no IPv6 address of its own: what the kernel would send for that would keep workers awake.
    Like a veth it has no queueing discipline: a tap never asks the kernel to wait, so none would ever hold a packet.
    Its queues hold what comes at once, say some thousand SYNs: each that is dropped costs its sender a second.
    """
    try:
        fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise GazelledError(
            f"{TUN_DEVICE}: {error.strerror}",
            hint="load the module tun; in a container pass the device and the capability NET_ADMIN",
        ) from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_FLAGS))
        fcntl.ioctl(fd, _TUNSETOWNER, 0)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError as error:
        raise GazelledError(f"{name}: the kernel makes no such tap: {error.strerror}") from error
    finally:
        os.close(fd)
    _change_link(name, IFLA_IFALIAS=alias, IFLA_TXQLEN=_TAP_QUEUE, mtu=mtu)
    try:
        _change_link(
            name, IFLA_AF_SPEC={"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_NONE)]})]}
        )
    except GazelledError:
        if Path("/proc/sys/net/ipv6").is_dir():  # else there is no IPv6 to be quiet about
            raise
    with suppress(GazelledError), _rtnetlink() as rtnetlink:  # without it packets take a little longer, no more
        rtnetlink.tc("replace", "noqueue", rtnetlink.link_lookup(ifname=name)[0], 0, parent=_TC_ROOT)


def tap_owner(name: str) -> int | None:
    """Return the uid of a tap's owner, -1 if it has none; None if there is no tap of this name."""
    try:
        return int(Path(f"/sys/class/net/{name}/owner").read_text())
    except OSError:
        return None


def tap_flags(name: str) -> int | None:
    """Return a tap's flags without the ones that tell its life, None if there is no tap of this name."""
    try:
        return int(Path(f"/sys/class/net/{name}/tun_flags").read_text(), 16) & ~_IFF_PERSIST
    except OSError:
        return None


def delete_link(name: str) -> None:
    """Delete a device; one that is not there is no error."""
    with _rtnetlink() as rtnetlink:
        for index in rtnetlink.link_lookup(ifname=name):
            rtnetlink.link("del", index=index)


def set_up(name: str, *, up: bool) -> None:
    """Set a device up or down."""
    _change_link(name, state="up" if up else "down")


def detach_xdp(name: str) -> None:
    """Detach whatever XDP program a device has, and forget libxdp's pins of it; nothing if the device is gone."""
    with _rtnetlink() as rtnetlink:
        found = rtnetlink.link_lookup(ifname=name)
    if not found:
        return
    _change_link(name, xdp={"attrs": [("IFLA_XDP_FD", -1)]})
    for pins in Path("/sys/fs/bpf/xdp").glob(f"dispatch-{found[0]}-*"):
        for pin in pins.iterdir():
            pin.unlink()
        pins.rmdir()


def has_clsact(name: str) -> bool:
    """Tell whether a device has the queueing discipline that tc programs hang from."""
    with _rtnetlink() as rtnetlink:
        return any(
            message.get_attr("TCA_KIND") == "clsact" for message in rtnetlink.get_qdiscs(index=_index(rtnetlink, name))
        )


def add_clsact(name: str) -> None:
    """Give a device that queueing discipline; nothing if it has it."""
    if not has_clsact(name):
        with _rtnetlink() as rtnetlink:
            rtnetlink.tc("add", "clsact", _index(rtnetlink, name))


def remove_clsact(name: str) -> None:
    """Take that queueing discipline away; nothing if the device, or it, is not there."""
    if read_link(name) is not None and has_clsact(name):
        with _rtnetlink() as rtnetlink:
            rtnetlink.tc("del", "clsact", _index(rtnetlink, name))


def has_filters(name: str) -> bool:
    """Tell whether a device has tc filters, of whomever; False if it is not there."""
    with _rtnetlink() as rtnetlink:
        found = rtnetlink.link_lookup(ifname=name)
        return any(
            list(rtnetlink.get_filters(index=index, parent=parent))
            for index in found
            for parent in (_CLSACT_INGRESS, _CLSACT_EGRESS)
        )


def input_filters() -> list[str]:
    """Name the netfilter chains that may refuse what comes in to this host: "inet filter input". Needs root."""
    found = [
        f"iptables {table}"
        for family in ("ip", "ip6")
        for table in _lines(Path(f"/proc/net/{family}_tables_names"))
        if table == "filter"
    ]
    from pyroute2.nftables.main import NFTables

    try:
        with NFTables(nfgen_family=0) as nftables:
            chains = list(nftables.get_chains())
            ruled = {
                (rule.get_attr("NFTA_RULE_TABLE"), rule.get_attr("NFTA_RULE_CHAIN")) for rule in nftables.get_rules()
            }
    except OSError:
        return found  # a kernel without nftables
    for chain in chains:
        hook, name = chain.get_attr("NFTA_CHAIN_HOOK"), chain.get_attr("NFTA_CHAIN_NAME")
        table, family = chain.get_attr("NFTA_CHAIN_TABLE"), _NFT_FAMILIES.get(chain["nfgen_family"])
        if hook is None or family is None or chain.get_attr("NFTA_CHAIN_TYPE") != "filter":
            continue
        drops = chain.get_attr("NFTA_CHAIN_POLICY") == _NF_DROP
        if hook.get_attr("NFTA_HOOK_HOOKNUM") in _NF_IN and (drops or (table, name) in ruled):
            found.append(f"{family} {table} {name}")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def has_connections(addresses: Sequence[str], ports: Set[int]) -> bool:
    """Tell whether the kernel has TCP connections (no listeners, no TIME-WAIT) at one of these addresses and ports."""
    from pyroute2 import DiagSocket
    from pyroute2.netlink.diag import SS_ALL, SS_CLOSE, SS_LISTEN, SS_TIME_WAIT

    states = SS_ALL & ~((1 << SS_LISTEN) | (1 << SS_TIME_WAIT) | (1 << SS_CLOSE))
    with DiagSocket() as diag:
        diag.bind()
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in diag.get_sock_stats(family=int(family), states=states):
                if message["idiag_sport"] in ports and str(ip_address(message["idiag_src"])) in addresses:
                    return True
    return False


def add_address(name: str, address: IPv4Interface | IPv6Interface) -> None:
    """Give a device an address, with the route to its subnet; nothing if it has it already.

    An IPv6 address is there at once, without a search for duplicates or routers, also where new devices have no IPv6.
    """
    flags = {}
    if address.version == 6:
        flags["flags"] = _IFA_F_NODAD
        _write_ipv6_setting(name, "disable_ipv6", "0")
        _write_ipv6_setting(name, "accept_ra", "0")
    with _rtnetlink() as rtnetlink:
        index = _index(rtnetlink, name)
        rtnetlink.addr("replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)


def _write_ipv6_setting(name: str, setting: str, value: str) -> None:
    path = Path(f"/proc/sys/net/ipv6/conf/{name}/{setting}")
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise GazelledError(
            f"{path}: {error.strerror}", hint="this host has no IPv6; leave network.host_addr6 out"
        ) from error


def remove_address(name: str, address: IPv4Interface | IPv6Interface) -> None:
    """Take an address away; nothing if the device, or the address, is not there."""
    if str(address) in addresses(name):
        with _rtnetlink() as rtnetlink:
            index = _index(rtnetlink, name)
            rtnetlink.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)


def unreachable(subnet: IPv4Network | IPv6Network) -> bool:
    """Tell whether our route is there that refuses what no other route to a subnet takes."""
    return bool(_our_routes(subnet))


def add_unreachable(subnet: IPv4Network | IPv6Network) -> None:
    """Make that route; nothing if it is there."""
    if not unreachable(subnet):
        with _rtnetlink() as rtnetlink:
            rtnetlink.route("add", **_unreachable(subnet))


def remove_unreachable(subnet: IPv4Network | IPv6Network) -> None:
    """Take that route away; nothing if it is not there."""
    if unreachable(subnet):
        with _rtnetlink() as rtnetlink:
            rtnetlink.route("del", **_unreachable(subnet))


def _unreachable(subnet: IPv4Network | IPv6Network) -> dict[str, object]:
    family = socket.AF_INET if subnet.version == 4 else socket.AF_INET6
    words = {"family": int(family), "dst": str(subnet), "type": "unreachable", "proto": _RTPROT}
    return {**words, "priority": _LAST_METRIC}


def _our_routes(subnet: IPv4Network | IPv6Network) -> list[Any]:
    family = int(socket.AF_INET if subnet.version == 4 else socket.AF_INET6)
    with _rtnetlink() as rtnetlink:
        routes = [message for message in rtnetlink.get_routes(family=family) if message["proto"] == _RTPROT]
    return [
        message
        for message in routes
        if message["type"] == _RTN_UNREACHABLE
        and message["dst_len"] == subnet.prefixlen
        and message.get_attr("RTA_DST") == str(subnet.network_address)
    ]


def _change_link(name: str, **what: object) -> None:
    with _rtnetlink() as rtnetlink:
        rtnetlink.link("set", index=_index(rtnetlink, name), **what)


def _index(rtnetlink: IPRoute, name: str) -> int:
    found: list[int] = rtnetlink.link_lookup(ifname=name)
    if not found:
        raise GazelledError(f"{name}: no such network device")
    return found[0]
