# SPDX-License-Identifier: MulanPSL-2.0
"""The host changes of an instance, other than NIC binding: how each is made, verified and undone.

They are only made through gazelled.host.journal; whether a change may be made at all is asked before, in host_setup.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import ClassVar

from gazelled.host import netlink
from gazelled.host.journal import FlatChange, register
from gazelled.host.sysfs import Host


@register
@dataclass(frozen=True)
class TapDevice(FlatChange):
    """The embedded default's tap: the host on one side, the workers' queues on the other.

    Root owns it. Workers open their queues before they become another user, so that user needs no right to it, and no
    other process of that user can open one.
    """

    kind: ClassVar[str] = "tap-device"
    name: str
    instance: str
    mtu: int

    @property
    def alias(self) -> str:
        """Return what marks the device as ours."""
        return f"gazelled instance {self.instance}"

    def describe(self) -> str:
        """Name the change for a person."""
        return f"tap {self.name}"

    def apply(self) -> None:
        """Make the tap."""
        netlink.create_tap(self.name, self.alias, self.mtu)

    def verify(self) -> str | None:
        """Compare its flags and MTU."""
        link, flags = netlink.read_link(self.name), netlink.tap_flags(self.name)
        if link is None or flags is None:
            return "expected a tap, found none"
        if flags != netlink.TAP_FLAGS:
            return f"expected a tap with flags {netlink.TAP_FLAGS:#x}, found {flags:#x}"
        return None if link.mtu == self.mtu else f"expected MTU {self.mtu}, found {link.mtu}"

    def undo(self) -> None:
        """Delete the device if it is the one we made, however far that got."""
        link = netlink.read_link(self.name)
        if link is not None and link.kind == "tun" and link.alias in ("", self.alias):
            netlink.delete_link(self.name)


@register
@dataclass(frozen=True)
class HostAddress(FlatChange):
    """An address of the host on a device, and with it the route to the subnet."""

    kind: ClassVar[str] = "host-address"
    device: str
    address: str  # with its prefix length

    def describe(self) -> str:
        """Name the change for a person."""
        return f"address {self.address} on {self.device}"

    def apply(self) -> None:
        """Add the address."""
        netlink.add_address(self.device, ip_interface(self.address))

    def verify(self) -> str | None:
        """Look for the address."""
        found = netlink.addresses(self.device)
        return None if self.address in found else f"expected {self.address}, found {', '.join(found) or 'no address'}"

    def undo(self) -> None:
        """Take the address away."""
        netlink.remove_address(self.device, ip_interface(self.address))


@register
@dataclass(frozen=True)
class UnreachableSubnet(FlatChange):
    """A last route to the stack's subnet, for every moment in which the tap's own is not there.

    While the tap is being made, has gone with a crash, or was set down, packets of the host's programs to the stack
    would take the default route and reach another machine. This route refuses them.
    """

    kind: ClassVar[str] = "unreachable-subnet"
    subnet: str

    def describe(self) -> str:
        """Name the change for a person."""
        return f"last route to {self.subnet}, unreachable"

    def apply(self) -> None:
        """Add the route."""
        netlink.add_unreachable(ip_network(self.subnet))

    def verify(self) -> str | None:
        """Look for the route."""
        return None if netlink.unreachable(ip_network(self.subnet)) else "expected it, found no such route"

    def undo(self) -> None:
        """Take the route away."""
        netlink.remove_unreachable(ip_network(self.subnet))


@register
@dataclass(frozen=True)
class LinkUp(FlatChange):
    """A device that was down, set up."""

    kind: ClassVar[str] = "link-up"
    device: str

    def describe(self) -> str:
        """Name the change for a person."""
        return f"{self.device} up"

    def apply(self) -> None:
        """Set it up."""
        netlink.set_up(self.device, up=True)

    def verify(self) -> str | None:
        """Look whether it is up."""
        link = netlink.read_link(self.device)
        return (
            None if link is not None and link.up else f"expected it up, found {'it down' if link else 'no such device'}"
        )

    def undo(self) -> None:
        """Set it down again, if it still exists."""
        if netlink.read_link(self.device) is not None:
            netlink.set_up(self.device, up=False)


@register
@dataclass(frozen=True)
class XdpProgram(FlatChange):
    """The XDP program that the first af_xdp worker attaches, for all of them, and that none of them may detach."""

    kind: ClassVar[str] = "xdp-program"
    device: str

    def describe(self) -> str:
        """Name the change for a person."""
        return f"XDP program on {self.device}"

    def apply(self) -> None:
        """Do nothing: the first worker attaches it when it opens its queue."""

    def verify(self) -> str | None:
        """Nothing can be expected before there is a worker."""
        return None

    def undo(self) -> None:
        """Detach it, after the last worker."""
        netlink.detach_xdp(self.device)


@register
@dataclass(frozen=True)
class DpdkRunDir(FlatChange):
    """The directory DPDK makes for each process under its --file-prefix, and leaves behind even after a clean exit."""

    kind: ClassVar[str] = "dpdk-run-dir"
    prefix: str

    @property
    def path(self) -> Path:
        """Return where it is; DPDK looks elsewhere if it does not run as root."""
        root = Path("/var/run" if os.geteuid() == 0 else "/tmp")  # noqa: S108  DPDK's own choice
        return root / "dpdk" / self.prefix

    def describe(self) -> str:
        """Name the change for a person."""
        return f"DPDK's files {self.path}"

    def apply(self) -> None:
        """Do nothing: the worker makes it."""

    def verify(self) -> str | None:
        """Nothing can be expected before there is a worker."""
        return None

    def undo(self) -> None:
        """Remove it, and DPDK's own directory if that was the last in it."""
        if "/" in self.prefix or not self.prefix.startswith("gz-"):
            raise ValueError(f'"{self.prefix}" is no prefix of ours')
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            raise OSError(f"{self.path} cannot be removed")
        with suppress(OSError):  # another DPDK program's files are in it, or were removed with it a moment ago
            self.path.parent.rmdir()


@register
@dataclass(frozen=True)
class HostValue(FlatChange):
    """A setting of the kernel: a file in /proc/sys or /sys with a value in it."""

    kind: ClassVar[str] = "host-value"
    path: str
    wanted: str
    before: str

    def describe(self) -> str:
        """Name the change for a person."""
        return f"{self.path} = {self.wanted}"

    @property
    def _file(self) -> Path:
        return Host.from_environment().root / self.path.lstrip("/")

    def apply(self) -> None:
        """Write the value."""
        self._file.write_text(self.wanted)

    def verify(self) -> str | None:
        """Read it back."""
        found = self._file.read_text().strip()
        return None if found == self.wanted else f"expected {self.wanted}, found {found}"

    def undo(self) -> None:
        """Put the value back that was there, unless another one was set since."""
        if self._file.exists() and self._file.read_text().strip() == self.wanted:
            self._file.write_text(self.before)
