# SPDX-License-Identifier: MulanPSL-2.0
"""What is read from sysfs, and what is concluded from it, without running a command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_kernel import FakeKernel

from gazelled.base.errors import GazelledError
from gazelled.host.sysfs import Host, find_nic, read_interface, read_nic, read_nics
from gazelled.nics.guard import Blocks, nic_rows, nic_uses
from gazelled.nics.network import (
    InterfaceState,
    Network,
    address_commands,
    cannot_restore,
    link_commands,
    route_commands,
)

NOTHING = Network({}, [])
WANTED = InterfaceState("lan0", 0, "02:00:00:00:00:01", 1500, True, "", [], [])


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    kernel.create()
    kernel.add_nic("0000:03:00.0", "e1000e", "eth1", "52:00:00:00:00:03", iommu_group="2")
    kernel.add_nic("0000:03:00.1", "e1000e", "eth2", "52:00:00:00:00:04", iommu_group="2")
    return kernel


def test_a_nic_is_read_with_its_interface(kernel: FakeKernel) -> None:
    nic = find_nic(Host(kernel.root), "eth1")
    assert (nic.pci, nic.driver, nic.driver_override, nic.numa, nic.vfs) == ("0000:03:00.0", "e1000e", "", 0, 0)
    assert nic.label == "eth1 (0000:03:00.0)"
    (interface,) = nic.interfaces
    assert (interface.mac, interface.mtu, interface.up, interface.queues) == ("52:00:00:00:00:03", 1500, False, 2)


def test_an_interface_behind_another_bus_belongs_to_its_pci_function(kernel: FakeKernel) -> None:
    device = kernel.pci_devices / "0000:03:00.0"
    (device / "virtio2").mkdir()
    (device / "net").rename(device / "virtio2/net")
    (kernel.net / "eth1").unlink()
    (kernel.net / "eth1").symlink_to("../../devices/pci0000:00/0000:03:00.0/virtio2/net/eth1")
    assert find_nic(Host(kernel.root), "eth1").pci == "0000:03:00.0"


def test_a_vf_belongs_to_its_own_function_not_to_the_bridge_above(kernel: FakeKernel) -> None:
    assert read_interface(Host(kernel.root), "eth2").pci == "0000:03:00.1"
    assert [nic.pci for nic in read_nics(Host(kernel.root))] == ["0000:03:00.0", "0000:03:00.1"]


def test_a_function_of_another_class_is_no_nic_unless_it_carries_an_interface(kernel: FakeKernel) -> None:
    for pci in ("0000:03:00.0", "0000:03:00.1"):
        (kernel.pci_devices / pci / "class").write_text("0xffff00\n")
    kernel.unbind("0000:03:00.1")
    assert [nic.pci for nic in read_nics(Host(kernel.root))] == ["0000:03:00.0"]
    with pytest.raises(GazelledError, match="a PCI device, but not a network device"):
        find_nic(Host(kernel.root), "03:00.1")


def test_what_is_not_there_is_read_as_nothing(tmp_path: Path) -> None:
    assert read_nic(Host(tmp_path), "0000:03:00.0") is None
    assert read_nics(Host(tmp_path)) == []
    with pytest.raises(GazelledError, match="none: this host has no PCI network device"):
        find_nic(Host(tmp_path), "eth0")


def test_a_virtual_interface_has_no_driver_to_change(kernel: FakeKernel) -> None:
    (kernel.root / "sys/devices/virtual/net/veth0").mkdir(parents=True)
    (kernel.net / "veth0").symlink_to("../../devices/virtual/net/veth0")
    with pytest.raises(GazelledError, match="veth0: not a PCI device") as error:
        find_nic(Host(kernel.root), "veth0")
    assert "af_xdp" in str(error.value.hint)


def test_who_keeps_an_iommu_group_is_known(kernel: FakeKernel) -> None:
    nic = read_nic(Host(kernel.root), "0000:03:00.0")
    assert nic is not None
    assert nic.iommu_group == "2"
    assert nic.group_mates == ("0000:03:00.1 (e1000e)",)
    kernel.unbind("0000:03:00.1")
    nic = read_nic(Host(kernel.root), "0000:03:00.0")
    assert nic is not None
    assert nic.group_mates == ()


def test_a_nic_whose_interface_is_elsewhere_is_not_taken_by_mistake(kernel: FakeKernel) -> None:
    nic = replace(find_nic(Host(kernel.root), "eth1"), interfaces=())
    (use,) = nic_uses(Host(kernel.root), nic, NOTHING)
    assert use.blocks is Blocks.UNLESS_FORCED
    assert "another network namespace" in use.reason


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, "pci after `bind`, af_xdp"),
        ({"driver": "mlx5_core"}, "pci as it is, af_xdp"),
        ({"driver": "vfio-pci", "interfaces": ()}, "pci (bound to vfio-pci)"),
        ({"vfs": 4}, "-"),
    ],
)
def test_how_a_nic_can_be_used(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], usable: str
) -> None:
    nic = replace(find_nic(Host(kernel.root), "eth1"), **change)  # type: ignore[arg-type]
    monkeypatch.setattr("gazelled.nics.guard.read_nics", lambda host: [nic])
    assert nic_rows(Host(kernel.root), NOTHING)[0].usable == usable


def test_an_interface_as_it_was_needs_no_command(kernel: FakeKernel) -> None:
    now = replace(read_interface(Host(kernel.root), "eth1"), name="lan0", mac=WANTED.mac, mtu=1500, up=True)
    assert link_commands(WANTED, now) == []


def test_an_interface_is_renamed_while_down(kernel: FakeKernel) -> None:
    now = replace(read_interface(Host(kernel.root), "eth1"), name="new0", mac=WANTED.mac, mtu=9000, up=True)
    assert [" ".join(argv) for argv in link_commands(WANTED, now)] == [
        "ip link set dev new0 down",
        "ip link set dev new0 name lan0",
        "ip link set dev lan0 mtu 1500",
        "ip link set dev lan0 up",
    ]


def test_addresses_keep_their_lifetimes_and_flags() -> None:
    entry = {"family": "inet", "local": "10.0.0.5", "prefixlen": 24, "scope": "global", "label": "lan0"}
    leased = {**entry, "dynamic": True, "valid_life_time": 600, "preferred_life_time": 300, "noprefixroute": True}
    (argv,) = address_commands(replace(WANTED, addresses=[leased]), [])
    assert " ".join(argv) == (
        "ip addr add 10.0.0.5/24 scope global label lan0 valid_lft 600 preferred_lft 300 noprefixroute dev lan0"
    )
    assert address_commands(replace(WANTED, addresses=[leased]), [entry]) == []


def test_routes_of_the_kernel_and_of_routers_are_not_ours_to_restore() -> None:
    for own in ({"protocol": "kernel"}, {"protocol": "ra", "expires": 100, "strange": 1}):
        assert cannot_restore({"family": "-6", "dst": "fd00::/64", "dev": "lan0", **own}) is None


def test_a_route_that_is_there_is_not_added_again() -> None:
    route = {"family": "-4", "dst": "10.0.0.0/8", "gateway": "10.1.0.1", "dev": "lan0", "flags": []}
    assert route_commands(replace(WANTED, routes=[route]), [{**route, "flags": ["linkdown"]}]) == []
    assert len(route_commands(replace(WANTED, routes=[route]), [{**route, "metric": 5}])) == 1
