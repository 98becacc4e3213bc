# SPDX-License-Identifier: MulanPSL-2.0
"""Beside the kernel: the tc programs between an interface and the stack's tap (native/bpf), as a host change.

Everything about BPF is done by uplinkctl, a small C program over libbpf. Nothing is pinned: the programs live as
long as they are attached, and are found again by the interface they are attached to.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from gazelled.base import command
from gazelled.base.errors import GazelledError
from gazelled.base.native_build import uplink_control, uplink_object
from gazelled.host import netlink
from gazelled.host.journal import register


@dataclass(frozen=True)
class UplinkState:
    """What the programs say of themselves. Counts are packets since they were attached."""

    owners: int  # id of the map of ports
    alive: int  # id of the map of living workers
    kernel_flows: bool  # the kernel may have connections on ports of the stack, so each packet is looked up
    taken: int  # to the stack
    kept: int  # of the kernel's own connections on ports of the stack
    fallen_back: int  # new connections that the kernel got because no worker lived
    returned: int  # packets for ports of the stack that no socket of it was for, and the kernel got
    silenced: int  # packets of the stack's connections that were dropped because no worker lived
    addresses: tuple[str, ...]


def read_state(interface: str) -> UplinkState:
    """Return the state of the programs at an interface; GazelledError if there are none."""
    said = json.loads(command.run([str(uplink_control()), "show", interface]).stdout)
    return UplinkState(
        **{**said, "kernel_flows": bool(said["kernel_flows"]), "addresses": tuple(sorted(said["addresses"]))}
    )


def index_of(interface: str) -> int:
    """Return the kernel's number of an interface, which a rename leaves as it is; 0: there is none."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def name_of(index: int) -> str | None:
    """Return the name that the interface of this number has now, None if it is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


def set_addresses(interface: str, addresses: Sequence[str]) -> None:
    """Make the programs look at packets to these addresses, and at no other packets."""
    command.run([str(uplink_control()), "addresses", interface, *addresses])


def owned_ports(interface: str) -> frozenset[int]:
    """Return the TCP ports that are the stack's."""
    return frozenset(json.loads(command.run([str(uplink_control()), "ports", interface]).stdout))


def settle(interface: str) -> None:
    """Say that the kernel has no connection on a port of the stack any more."""
    command.run([str(uplink_control()), "settle", interface])


def needs_qdisc(interface: str) -> bool:
    """Tell whether programs at an interface hang from a queueing discipline on this kernel."""
    return command.run([str(uplink_control()), "method", interface]).stdout.strip() == "clsact"


@register
@dataclass(frozen=True)
class UplinkPrograms:
    """The programs at the ingress of an interface and of the tap.

    Before Linux 6.6 they hang from a queueing discipline, and where there is none yet the interface loses what it would
    send in the milliseconds that the kernel takes to add it, and again when it is removed.
    """

    kind: ClassVar[str] = "uplink-programs"
    interface: str
    tap: str
    workers: int
    new_qdisc: bool  # the interface needs clsact and had none before
    index: int = 0  # the interface's number, by which undo finds a renamed one

    @classmethod
    def between(cls, interface: str, tap: str, workers: int) -> Self:
        """Return the change for an interface as it is now."""
        return cls(
            interface, tap, workers, needs_qdisc(interface) and not netlink.has_clsact(interface), index_of(interface)
        )

    def describe(self) -> str:
        """Name the change for a person."""
        return f"tc programs at {self.interface} and {self.tap}"

    def apply(self) -> None:
        """Load and attach them."""
        if needs_qdisc(self.interface):
            for name in (self.interface, self.tap):
                netlink.add_clsact(name)
        command.run([
            str(uplink_control()), "attach", str(uplink_object()), self.interface, self.tap, str(self.workers)
        ])  # fmt: skip

    def verify(self) -> str | None:
        """Look for the program at the interface, which was attached last."""
        try:
            read_state(self.interface)
        except GazelledError as error:
            return str(error)
        return None

    def undo(self) -> None:
        """Detach them, and remove the qdisc if we added it and no other program is attached to it."""
        interface = name_of(self.index) or self.interface
        command.run([str(uplink_control()), "detach", interface, self.tap])
        if self.new_qdisc and not netlink.has_filters(interface):
            netlink.remove_clsact(interface)

    def to_json(self) -> dict[str, object]:
        """Return this as the journal keeps it."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Self:
        """Rebuild it from the journal."""
        return cls(
            str(data["interface"]),
            str(data["tap"]),
            int(str(data["workers"])),
            bool(data["new_qdisc"]),
            int(str(data.get("index", 0))),
        )
