# SPDX-License-Identifier: MulanPSL-2.0
"""Giving a NIC to DPDK and back to the kernel: the host changes, and the rules that say when not to.

The driver is changed by DPDK's own dpdk-devbind script. That script ends with status 0 on many failures, so nothing it
says is believed: sysfs is read before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from gazelled.base import command
from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.run_root import run_root
from gazelled.base.wait import locked, wait_for
from gazelled.host.journal import FlatChange, Journal, register
from gazelled.host.sysfs import (
    BIFURCATED_DRIVERS,
    DPDK_DRIVERS,
    Host,
    Interface,
    Nic,
    find_nic,
    read_driver,
    read_nic,
    vfio_holders,
)
from gazelled.nics.guard import refuse_if_in_use
from gazelled.nics.network import InterfaceState, capture, read_network, restore

Report = Callable[[str], None]

_DEVBIND_HINT = "install DPDK's tools (Debian: apt install dpdk pciutils)"
_IOMMU_HINT = (
    "enable the IOMMU in the firmware and boot with intel_iommu=on (AMD: it is on by default). Without one, vfio works "
    "only unprotected, where the NIC can write to any memory and workers must stay root: "
    "echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
)
_INTERFACE_WAIT_S = 15.0


def _device_locked(host: Host, pci: str) -> AbstractContextManager[None]:
    return locked(host.sys(f"bus/pci/devices/{pci}"), for_commands=True)


def _drivers_locked(host: Host) -> AbstractContextManager[None]:
    return locked(host.sys("bus/pci/drivers"), for_commands=True)


@register
@dataclass(frozen=True)
class LoadDriver(FlatChange):
    """A DPDK driver's kernel module, loaded for a bind."""

    kind: ClassVar[str] = "load-driver"
    driver: str

    def describe(self) -> str:
        """Name the change for a person."""
        return f"kernel module for {self.driver}"

    def apply(self) -> None:
        """Load the module."""
        with _drivers_locked(Host.from_environment()):
            command.run(
                ["modprobe", self.driver],
                hint=f"the kernel needs the module {self.driver}"
                " (Debian's linux-image-amd64 has it, the kernels made for clouds may not)",
            )

    def verify(self) -> str | None:
        """Look for the driver on the PCI bus."""
        return (
            None
            if _is_loaded(Host.from_environment(), self.driver)
            else f"expected the PCI driver {self.driver}, found none"
        )

    def undo(self) -> None:
        """Unload the module unless a device still uses it."""
        host = Host.from_environment()
        with _drivers_locked(host):
            if _is_loaded(host, self.driver) and not _is_used(host, self.driver):
                command.run(["modprobe", "-r", self.driver])


@register
@dataclass(frozen=True)
class BindNic:
    """A NIC bound to a DPDK driver, with all that the kernel forgets about it by that."""

    kind: ClassVar[str] = "bind-nic"
    pci: str
    driver: str
    old_driver: str
    old_override: str
    interfaces: tuple[InterfaceState, ...]

    def describe(self) -> str:
        """Name the change for a person."""
        names = ",".join(state.name for state in self.interfaces)
        return f"{names or 'NIC'} ({self.pci}) from {self.old_driver or 'no driver'} to {self.driver}"

    def apply(self) -> None:
        """Change the driver."""
        host = Host.from_environment()
        with _device_locked(host, self.pci):
            _change_driver(host, self.pci, self.driver)

    def verify(self) -> str | None:
        """Compare the driver in sysfs."""
        found = read_driver(Host.from_environment(), self.pci)
        return None if found == self.driver else f"expected driver {self.driver}, found {found or 'none'}"

    def undo(self) -> None:
        """Give the NIC back its driver, then its interfaces what they had. A NIC that was pulled out needs nothing."""
        host = Host.from_environment()
        if read_nic(host, self.pci) is None:
            return
        with _device_locked(host, self.pci):
            nic = read_nic(host, self.pci)
            if nic is None:
                return
            if nic.driver != self.old_driver:
                holders = vfio_holders(host, nic)
                if holders:
                    raise GazelledError(
                        f"{self.pci}: in use by process {', '.join(holders)}",
                        hint="stop it first: `gazelled stop`, or the other DPDK program",
                    )
                # The old driver does not take a device whose driver_override names another.
                _write_override(host, nic, "")
                if self.old_driver and not _is_loaded(host, self.old_driver):
                    command.run(["modprobe", self.old_driver])
                _change_driver(host, self.pci, self.old_driver)
                nic = read_nic(host, self.pci) or nic
            if nic.driver_override != self.old_override:
                _write_override(host, nic, self.old_override)
            failed: list[str] = []
            for state in self.interfaces:
                try:
                    restore(host, state, _wait_for_interface(host, self.pci, state).name)
                except GazelledError as error:
                    failed += error.messages
            if failed:
                raise GazelledError("; ".join(failed))

    def to_json(self) -> dict[str, object]:
        """Return this as the journal keeps it."""
        return {
            "pci": self.pci,
            "driver": self.driver,
            "old_driver": self.old_driver,
            "old_override": self.old_override,
            "interfaces": [state.to_json() for state in self.interfaces],
        }

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Self:
        """Rebuild it from the journal."""
        states = cast(list[dict[str, Any]], data["interfaces"])
        return cls(
            str(data["pci"]),
            str(data["driver"]),
            str(data["old_driver"]),
            str(data["old_override"]),
            tuple(InterfaceState.from_json(state) for state in states),
        )


def _is_loaded(host: Host, driver: str) -> bool:
    return host.sys(f"bus/pci/drivers/{driver}").is_dir()


def _is_used(host: Host, driver: str) -> bool:
    entries = host.sys(f"bus/pci/drivers/{driver}").iterdir()
    return any(entry.is_symlink() and entry.name != "module" for entry in entries)


def _change_driver(host: Host, pci: str, driver: str) -> None:
    """Bind a PCI function to a driver, or to none if `driver` is empty, and make sure of it."""
    if read_driver(host, pci) == driver:
        return
    # --force: the script refuses any interface with a route. What is in use was decided by our own, finer rules.
    action = [f"--bind={driver}"] if driver else ["--unbind"]
    said = command.run(["dpdk-devbind.py", "--force", *action, pci], timeout=60, hint=_DEVBIND_HINT).stderr.strip()
    found = read_driver(host, pci)
    if found != driver:
        raise GazelledError(
            f"{pci}: dpdk-devbind left it with driver {found or 'none'} instead of {driver or 'none'}"
            + (f": {said.splitlines()[-1]}" if said else ""),
            hint="`dmesg | tail` has the kernel's reason",
        )


def _write_override(host: Host, nic: Nic, driver: str) -> None:
    if nic.driver_override == driver:
        return
    try:
        host.sys(f"bus/pci/devices/{nic.pci}/driver_override").write_text(f"{driver}\n")  # a bare line feed clears it
    except OSError as error:
        raise GazelledError(f"{error.filename}: {error.strerror}") from error


def _wait_for_interface(host: Host, pci: str, state: InterfaceState) -> Interface:
    """Return the interface that a driver has made for a function, once the driver and udev are done with it."""

    def find() -> Interface | None:
        nic = read_nic(host, pci)
        return next((each for each in nic.interfaces if each.dev_port == state.dev_port), None) if nic else None

    wait_for(lambda: find() is not None, _INTERFACE_WAIT_S, f"{pci}: its driver made no interface for {state.name}")
    if command.find("udevadm"):
        command.run(["udevadm", "settle", "--timeout=10"])  # or udev would rename it behind our back
    found = find()
    if found is None:
        raise GazelledError(f"{pci}: its interface for {state.name} came and went")
    return found


def _check_iommu(host: Host, nic: Nic) -> None:
    """Refuse to hand a NIC to vfio-pci where the kernel would refuse anyway, with the honest ways out."""
    unsafe = host.sys("module/vfio/parameters/enable_unsafe_noiommu_mode")
    if nic.iommu_group or (unsafe.exists() and unsafe.read_text().strip() in ("Y", "1")):
        return
    raise GazelledError(f"{nic.label}: vfio-pci needs an IOMMU and this host has none for it", hint=_IOMMU_HINT)


def _bound(root: Path) -> list[tuple[str, BindNic]]:
    """Return every bind that is not undone, with whose it is: an instance's name, or "nics" for those made by hand."""
    return [
        (path.parent.name, change)
        for path in sorted(root.glob("*/journal"))
        for change in Journal(path).pending_of(BindNic)
    ]


def _find(host: Host, device: str) -> Nic:
    """As `find_nic`; a NIC whose interface is gone because we bound it is still known by that name."""
    try:
        return find_nic(host, device)
    except GazelledError:
        for _, change in _bound(run_root()):
            nic = read_nic(host, change.pci)
            if nic is not None and device in (state.name for state in change.interfaces):
                return nic
        raise


def bind_nics(journal: Journal, devices: Sequence[str], driver: str, *, force: bool, report: Report) -> list[str]:
    """Bind NICs, named by interface or PCI address, to a DPDK driver; return the PCI addresses that were changed.

    All are checked before the first is touched. A NIC already bound so, or one whose driver serves DPDK beside the
    kernel, is left as it is. On failure raises GazelledError; what was made stays journalled, for the caller to undo.
    """
    host = Host.from_environment()
    if driver not in DPDK_DRIVERS:
        raise GazelledError(
            f"{driver}: not a driver for DPDK (allowed: {', '.join(DPDK_DRIVERS)})", exit_code=ExitCode.USAGE
        )
    todo: list[Nic] = []
    for nic in (_find(host, device) for device in devices):
        if nic.driver == driver:
            report(f"{nic.label}: already bound to {driver}, nothing to do")
        elif nic.driver in BIFURCATED_DRIVERS:
            report(f"{nic.label}: {nic.driver} serves DPDK and the kernel at once, nothing to do")
        elif nic.pci not in (each.pci for each in todo):
            todo.append(nic)
    if not todo:
        return []
    network = read_network()
    for nic in todo:
        refuse_if_in_use(host, nic, network, force=force, report=report)
        if _is_loaded(host, driver) and driver == "vfio-pci":
            _check_iommu(host, nic)
    if not _is_loaded(host, driver):
        load = LoadDriver(driver)
        report(f"loading the {load.describe()}")
        journal.make(load)
    for nic in todo:
        if driver == "vfio-pci":
            _check_iommu(host, nic)
        states = tuple(capture(interface, network) for interface in nic.interfaces)
        change = BindNic(nic.pci, driver, nic.driver, nic.driver_override, states)
        report(f"binding {change.describe()}")
        journal.make(change)
        for mate in nic.group_mates:
            report(
                f"{nic.label}: {mate} shares IOMMU group {nic.iommu_group}; vfio-pci works only once that is bound too"
            )
    return [nic.pci for nic in todo]


@contextmanager
def _by_hand(root: Path) -> Iterator[Journal]:
    """Open the journal of binds made by hand, alone; its directory goes when nothing is pending."""
    directory = root / "nics"
    # Not the directory's own lock: a process that waits for it could get the lock of a directory deleted by then.
    with locked(Host.from_environment().sys("class/net")):
        try:
            yield Journal(directory / "journal")
        finally:
            if directory.exists() and not any(directory.iterdir()):
                directory.rmdir()


def bind_by_hand(device: str, driver: str, *, force: bool, report: Report) -> None:
    """Serve `gazelled bind`: until `unbind_by_hand`. A bind that fails is taken back before the error is raised."""
    with _by_hand(run_root()) as journal:
        before = journal.pending()
        try:
            bind_nics(journal, [device], driver, force=force, report=report)
        except GazelledError:
            journal.undo_where(lambda change: change not in before, report)
            raise


def unbind_by_hand(device: str, *, report: Report) -> None:
    """Serve `gazelled unbind`: give back what `bind_by_hand` took. Nothing to do is no error."""
    host, root = Host.from_environment(), run_root()
    with _by_hand(root) as journal:
        nic = _find(host, device)
        mine = [change for change in journal.pending_of(BindNic) if change.pci == nic.pci]
        if not mine:
            _nothing_to_unbind(nic, _bound(root), report)
            return
        problems = journal.undo_where(lambda change: change in mine, report)
        # The module goes with the last bind that needed it.
        needed = {change.driver for _, change in _bound(root)}
        problems += journal.undo_where(
            lambda change: isinstance(change, LoadDriver) and change.driver not in needed, report
        )
        if problems:
            raise GazelledError(
                f"{nic.label}: not all was put back: {'; '.join(problems)}",
                hint="fix the cause, then run `gazelled unbind` or `gazelled recover` again",
            )


def _nothing_to_unbind(nic: Nic, bound: list[tuple[str, BindNic]], report: Report) -> None:
    owner = next((owner for owner, change in bound if change.pci == nic.pci), None)
    if owner is not None:
        raise GazelledError(
            f"{nic.label}: bound by the instance {owner}", hint=f"`gazelled stop -i {owner}` gives it back"
        )
    if nic.driver in DPDK_DRIVERS:
        raise GazelledError(
            f"{nic.label}: bound to {nic.driver}, but not by gazelled, which cannot know its old driver",
            hint=f"`dpdk-devbind.py --bind=DRIVER {nic.pci}`",
        )
    report(f"{nic.label}: not bound, its driver is {nic.driver or 'none'}; nothing to do")


def recover(root: Path, report: Report) -> list[str]:
    """Serve `gazelled recover`: undo every bind made by hand. Returns the problems; nothing to do is none."""
    if not (root / "nics").exists():
        return []
    with _by_hand(root) as journal:
        return journal.undo_all(report)
