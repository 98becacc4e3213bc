# SPDX-License-Identifier: MulanPSL-2.0
"""What a plan needs of the host: looked at before the first change, then made step by step through the journal."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.sizes import iec
from gazelled.configuration.settings import OWN_NAME
from gazelled.host import netlink
from gazelled.host.changes import DpdkRunDir, HostAddress, LinkUp, TapDevice, UnreachableSubnet, XdpProgram
from gazelled.host.journal import Journal
from gazelled.host.sysfs import Host
from gazelled.host.uplink import UplinkPrograms, set_addresses
from gazelled.pages.group_page import OWN_MAX
from gazelled.planning.plan import Plan

Report = Callable[[str], None]

LINK_LOCAL = "fe80::1/64"  # the host's, on every tap
_ARPHRD_ETHER = "1"


@dataclass(frozen=True)
class WorkerUser:
    """Whom workers become once their port is open; 0: they stay what they are. `own_gid`: their own user's group."""

    uid: int
    gid: int
    own_gid: int


def worker_user(plan: Plan) -> WorkerUser:
    """Return the user of the workers' own; if we are not root, ourselves. GazelledError if there is no such user.

    Never one that other services use as well: those could end a worker. Where DPDK needs physical addresses (a NIC
    without an IOMMU behind it) workers must stay root.
    """
    if os.geteuid() != 0:
        return WorkerUser(0, 0, os.getegid())
    try:
        user = pwd.getpwnam(OWN_NAME)
    except KeyError:
        raise GazelledError(
            f"there is no user {OWN_NAME}, whom workers become",
            hint="`systemd-sysusers` makes it after `make install`; else `adduser --system --group --no-create-home "
            f"--home /nonexistent {OWN_NAME}`",
        ) from None
    if not user.pw_uid or not user.pw_gid:
        raise GazelledError(f"user {OWN_NAME} is root by number", hint="workers need a user and a group of their own")
    if plan.device.driver == "pci" and not _behind_iommu(plan):
        return WorkerUser(0, 0, user.pw_gid)
    return WorkerUser(user.pw_uid, user.pw_gid, user.pw_gid)


def _behind_iommu(plan: Plan) -> bool:
    return all(
        step.driver == "vfio-pci" and Path(f"/sys/bus/pci/devices/{step.pci}/iommu_group").exists()
        for step in plan.host.bind
    )


def dpdk_prefix(plan: Plan, queue_id: int) -> str:
    """Return the --file-prefix of a worker."""
    return f"gz-{plan.instance}-{queue_id}"


def prepare(plan: Plan, journal: Journal, report: Report, host: Host | None = None) -> None:
    """Make every host change the plan needs. On GazelledError the caller undoes what the journal has."""
    driver = plan.device.driver
    if driver != "none" and os.geteuid() != 0:
        raise GazelledError(
            f"driver {driver}: only root can open ports",
            hint='run it as root; driver = "none" needs no root, and serves programs on this host only',
            exit_code=ExitCode.PERMISSION,
        )
    _check_hugepages(plan, host or Host.from_environment())
    for worker in plan.workers:
        journal.make(DpdkRunDir(dpdk_prefix(plan, worker.queue_id)))
    if driver == "tap":
        _prepare_tap(plan, journal, report)
    elif driver == "af_xdp":
        _check_xdp(plan.device.name)
        journal.make(XdpProgram(plan.device.name))
        _set_up(plan.device.name, journal, report)
    elif driver == "af_packet":
        _existing(plan.device.name)
        _set_up(plan.device.name, journal, report)
    elif driver == "pci":
        from gazelled.nics.binding import bind_nics

        for host_driver in dict.fromkeys(step.driver for step in plan.host.bind):
            devices = [step.pci for step in plan.host.bind if step.driver == host_driver]
            bind_nics(journal, devices, host_driver, force=False, report=report)


def _check_hugepages(plan: Plan, host: Host) -> None:
    """Refuse a port whose workers must have hugepages, unless so many are free at this moment.

    The planner cannot be the judge: it also plans for an instance that runs, and has the pages.
    """
    from gazelled.host.topology_probe import read_hugepages

    now = {(pages.numa, pages.size_kb): pages for pages in read_hugepages(host)}
    for need in plan.host.hugepages:
        there = now.get((need.numa, need.size_kb))
        total, left = (there.total, there.free) if there else (0, 0)
        if need.required and left < need.pages:
            raise GazelledError(
                f"driver {plan.device.driver}: the workers of node {need.numa} need {need.pages} hugepages of "
                f"{iec(need.size_kb << 10)}, {left} are free",
                hint=f"end what uses the others, or echo {total + need.pages - left} > /sys/devices/system/node/"
                f"node{need.numa}/hugepages/hugepages-{need.size_kb}kB/nr_hugepages",
                exit_code=ExitCode.UNAVAILABLE,
            )


def _prepare_tap(plan: Plan, journal: Journal, report: Report) -> None:
    name, network = plan.device.name, plan.network
    if not netlink.TUN_DEVICE.exists():
        raise GazelledError(
            f"{netlink.TUN_DEVICE}: not there",
            hint="load the module tun (`modprobe tun`); in a container pass the device and the capability NET_ADMIN",
        )
    link = netlink.read_link(name)
    if link is not None and plan.device.embedded:
        raise GazelledError(
            f"{name}: a device of this name exists, and no running instance owns it",
            hint=f"`ip link delete {name}` if nothing needs it, or another instance name (-i)",
        )
    if link is not None:  # a tap made beforehand: its addresses are the administrator's
        if netlink.tap_flags(name) != netlink.TAP_FLAGS:
            raise GazelledError(
                f"{name}: not a multi-queue tap with vnet headers",
                hint=f"`ip tuntap add dev {name} mode tap user root multi_queue vnet_hdr`, or let start make it",
            )
        if netlink.tap_owner(name) != 0:
            report(
                f"warning: {name}: its owner is not root: that user may open more queues of it and get a part of the "
                f"traffic; `ip tuntap add dev {name} mode tap user root multi_queue vnet_hdr` makes one for us alone"
            )
        _set_up(name, journal, report)
        return
    if plan.device.uplink is not None:
        _prepare_uplink(plan, plan.device.uplink, journal, report)
        return
    ours = [("host_addr", f"{network.host_addr}/{network.prefix}", f"{network.host_peer}/{network.prefix}")]
    if network.host_addr6:
        ours.append(("host_addr6", f"{network.host_addr6}/64", f"{network.host_peer6}/64"))
    for key, stack, _ in ours:
        taken = netlink.overlap(ip_interface(stack).network, but=name)
        if taken is not None:
            raise GazelledError(
                f"network.{key} {stack}: the subnet overlaps {taken}", hint="choose a subnet this host does not use"
            )
    tap = TapDevice(name, plan.instance, plan.device.mtu)
    for _, stack, peer in ours:
        report(f"{tap.describe()}: {peer} for the host, {stack.partition('/')[0]} for the stack")
    for _, stack, _ in ours:
        journal.make(UnreachableSubnet(str(ip_interface(stack).network)))
    journal.make(tap)
    for _, _, peer in ours:
        journal.make(HostAddress(name, peer))
    if network.host_addr6:  # without one the host does not ask for neighbours when it forwards
        journal.make(HostAddress(name, LINK_LOCAL))
    journal.make(LinkUp(name))


def _prepare_uplink(plan: Plan, uplink: str, journal: Journal, report: Report) -> None:
    """Make the tap and the programs between it and the interface. The interface itself stays as it is."""
    _existing(uplink, "port.uplink")
    if Path(f"/sys/class/net/{uplink}/type").read_text().strip() != _ARPHRD_ETHER:
        raise GazelledError(
            f"port.uplink {uplink}: not an Ethernet interface", hint="an interface with a hardware address (`ip link`)"
        )
    filters = [] if plan.device.past_firewall else netlink.input_filters()
    if filters:
        raise GazelledError(
            f"port.uplink {uplink}: netfilter rules here would not see the stack's packets ({', '.join(filters)})",
            hint="--past-firewall (port.past_firewall = true) if all who reach the interface may reach those ports",
        )
    name, network = plan.device.name, plan.network
    journal.make(TapDevice(name, plan.instance, plan.device.mtu))
    journal.make(LinkUp(name))
    programs = UplinkPrograms.between(uplink, name, plan.tot_queue_num)
    report(f"{programs.describe()}: ports of programs on the stack, at {network.host_addr}, are the stack's")
    journal.make(programs)
    set_addresses(uplink, netlink.own_addresses(uplink)[:OWN_MAX])


def _check_xdp(name: str) -> None:
    """Refuse a device that has an XDP program of another owner; the planner has checked all else."""
    link = _existing(name)
    if link.xdp is not None:
        raise GazelledError(
            f"{name}: another XDP program (id {link.xdp}) is attached to it",
            hint=f"`ip link set {name} xdp off` if nothing needs it",
        )


def _existing(name: str, key: str = "port.device") -> netlink.Link:
    link = netlink.read_link(name)
    if link is None:
        raise GazelledError(f"{key} {name}: no such network device", hint="`gazelled nics` and `ip link` list them")
    return link


def _set_up(name: str, journal: Journal, report: Report) -> None:
    if not _existing(name).up:
        change = LinkUp(name)
        report(change.describe())
        journal.make(change)
