# SPDX-License-Identifier: MulanPSL-2.0
"""Beside the kernel: what the plan takes from the interface, and what keeps it from being started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address
from pathlib import Path

import pytest
from machines import machine

from gazelled.base.errors import GazelledError
from gazelled.config import AUTO, Config, Uplink, load_config
from gazelled.configuration.model import parse_config
from gazelled.host.uplink import UplinkState
from gazelled.instance.run_dir import UPLINK_FILE, RunDir
from gazelled.instance.uplink_watch import UplinkWatch
from gazelled.pages.group_page import OWN_MAX, Driver, GroupPage, Role, WorkerRow, layout
from gazelled.pages.group_page import write as write_page
from gazelled.planning.plan import Plan
from gazelled.planning.topology import Nic, Topology
from gazelled.queue_planner import plan

ETH0 = Nic("eth0", "0000:03:00.0", 0, "virtio_net", 4, "02:fc:00:00:00:01",
           ("fe80::1/64", "192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"), mtu=9000, kind="ether")  # fmt: skip


WORKER = WorkerRow(0, 0, 0, Role.BOTH, None, None, 1024, 256, 256, "lstack-0", "lstack-0", "rxtx_mbuf_0")


def beside(*nics: Nic) -> Topology:
    return replace(machine(), nics=nics)


def config(text: str = '[port]\nuplink = "eth0"\n') -> Config:
    return parse_config(text, "x")


def test_addresses_mac_and_mtu_are_the_interfaces() -> None:
    made = plan(config(), beside(ETH0))
    network, device = made.network, made.device
    assert (network.host_addr, network.prefix, network.host_addr6) == ("192.0.2.2", 24, "2001:db8::2")
    assert (network.mac, device.mtu, device.uplink) == (ETH0.mac, 9000, "eth0")
    assert (network.gateway, network.host_peer, device.embedded) == (None, None, True)
    assert not made.errors
    assert Plan.from_json(made.to_json()) == made


@pytest.mark.parametrize(("name", "kind"), [("eth0.5", "vlan"), ("bond0", "bond"), ("br0", "bridge")])
def test_what_has_no_device_of_its_own_is_an_uplink_as_any_other(name: str, kind: str) -> None:
    """A VLAN's or bond's frames come and go by it as an Ethernet interface's do. What carries it is not asked."""
    bare = replace(ETH0, name=name, pci="", driver="", queues=0, kind=kind, mtu=1496)
    made = plan(config(f'[port]\nuplink = "{name}"\n'), beside(replace(ETH0, addresses=()), bare))
    assert not made.errors
    assert (made.device.uplink, made.device.mtu, made.network.host_addr) == (name, 1496, "192.0.2.2")


def test_the_command_line_outranks_what_the_file_says_of_ports(tmp_path: Path) -> None:
    file = tmp_path / "gazelle.toml"
    file.write_text('[port]\ndriver = "af_xdp"\ndevice = "eth1"\nmtu = 1400\n[network]\nhost_addr = "10.0.0.2/24"\n')
    read = load_config(file, None, Uplink("eth0", past_firewall=True))
    assert (read.port.driver, read.port.device, read.port.uplink, read.port.mtu) == ("tap", (), "eth0", None)
    assert read.port.past_firewall
    assert read.network.host_addr == AUTO


def test_an_address_auto_is_the_default_of_an_uplink_and_may_be_written() -> None:
    written = config('[port]\nuplink = "eth0"\n[network]\nhost_addr = "auto"\n')
    assert written == config()


@pytest.mark.parametrize(
    ("nics", "reason"),
    [
        ((), "not in this machine, which has none"),
        ((replace(ETH0, name="eth7"),), "not in this machine, which has eth7"),
        (
            (replace(ETH0, addresses=("fe80::1/64", "169.254.1.1/16")),),
            "has no IPv4 address that the stack could share",
        ),
    ],
)
def test_what_keeps_it_from_being_started_is_an_error_of_the_plan(nics: tuple[Nic, ...], reason: str) -> None:
    (finding,) = plan(config(), beside(*nics)).errors
    assert (finding.object, finding.reason) == ("port.uplink eth0", reason)


class FakePrograms:
    """The programs at an interface, and the kernel's view of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: tuple[str, ...] = ("192.0.2.2",)
        self.set: list[list[str]] = []
        self.kernel_flows = True
        self.connections = True
        self.settled = 0
        self.name: str | None = "eth0"
        module = "gazelled.instance.uplink_watch"
        monkeypatch.setattr(f"{module}.uplink.index_of", lambda _name: 7)
        monkeypatch.setattr(f"{module}.uplink.name_of", lambda _index: self.name)
        monkeypatch.setattr(f"{module}.netlink.own_addresses", lambda _name: list(self.addresses))
        monkeypatch.setattr(f"{module}.netlink.has_connections", lambda _addresses, _ports: self.connections)
        monkeypatch.setattr(f"{module}.uplink.set_addresses", lambda _name, addresses: self.set.append(list(addresses)))
        monkeypatch.setattr(f"{module}.uplink.owned_ports", lambda _name: frozenset({80}))
        monkeypatch.setattr(f"{module}.uplink.settle", self.settle)
        monkeypatch.setattr(f"{module}.uplink.read_state", self.read_state)

    def settle(self, _name: str) -> None:
        self.settled += 1
        self.kernel_flows = False

    def read_state(self, name: str) -> UplinkState:
        if not self.addresses:
            raise GazelledError(f"{name}: no program of gazelled is attached to it")
        return UplinkState(1, 2, self.kernel_flows, 10, 0, 1, 0, 0, ("192.0.2.2",))


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    return FakePrograms(monkeypatch)


Watch = tuple[UplinkWatch, list[str]]


@pytest.fixture
def watch(tmp_path: Path, programs: FakePrograms) -> Iterator[Watch]:
    assert programs.name
    said: list[str] = []
    page = GroupPage("x", tmp_path, Driver.TAP, "gz-x", IPv4Interface("192.0.2.2/24"), workers=(WORKER,))
    write_page(page)
    watching = UplinkWatch("eth0", (0,), RunDir(tmp_path), said.append)
    yield watching, said
    watching.events.close()


def own(tmp_path: Path) -> list[str]:
    """Return the addresses that workers and programs find in the group page."""
    size, offsets = layout()["gz_group_page"]
    table = (tmp_path / "group.0").read_bytes()[offsets["own"] : size]
    rows = [IPv6Address(table[at : at + 16]) for at in range(0, 16 * OWN_MAX, 16)]
    return [str(row.ipv4_mapped or row) for row in rows if int(row)]


def test_the_kernels_turn_is_told_with_its_length(tmp_path: Path, watch: Watch, programs: FakePrograms) -> None:
    watching, said = watch
    for living, now in ((2, 0.0), (1, 1.0), (0, 2.0), (0, 3.0), (1, 4.5)):
        watching.look(living, now)
    assert said == [
        "eth0: no worker lives, the kernel serves new connections",
        "eth0: the stack serves again, after 2.5 s of the kernel",
    ]
    assert programs.set == [["192.0.2.2"]]


def test_each_packet_is_looked_up_until_the_kernel_has_no_connection_left(
    tmp_path: Path, watch: Watch, programs: FakePrograms
) -> None:
    watching, _ = watch
    watching.look(1, 0.0)
    assert programs.settled == 0
    programs.connections = False
    watching.look(1, 1.0)  # too early for another look
    assert programs.settled == 0
    watching.look(1, 5.0)
    assert programs.settled == 1
    watching.look(1, 10.0)
    assert programs.settled == 1


def test_an_address_is_served_while_the_interface_has_it(tmp_path: Path, watch: Watch, programs: FakePrograms) -> None:
    watching, said = watch
    watching.look(1, 0.0)
    assert own(tmp_path) == ["192.0.2.2"]
    programs.addresses = ("192.0.2.9", "fe80::9")
    watching.hear()
    assert own(tmp_path) == ["192.0.2.9", "fe80::9"]
    watching.hear()
    programs.addresses = ("192.0.2.2", "192.0.2.9")
    watching.look(1, 5.0)
    assert sorted(own(tmp_path)) == ["192.0.2.2", "192.0.2.9"]
    assert programs.set == [["192.0.2.2"], ["192.0.2.9", "fe80::9"], ["192.0.2.2", "192.0.2.9"]]
    assert [line.split(",")[0] for line in said] == [
        "eth0: lost the address 192.0.2.2",
        "eth0: has the address 192.0.2.9",
        "eth0: has the address fe80::9",
        "eth0: lost the address fe80::9",
        "eth0: has the address 192.0.2.2",
    ]


def test_what_the_page_has_no_room_for_stays_the_kernels(tmp_path: Path, watch: Watch, programs: FakePrograms) -> None:
    watching, said = watch
    programs.addresses = tuple(f"192.0.2.{i}" for i in range(2, OWN_MAX + 5))
    watching.look(1, 0.0)
    assert len(own(tmp_path)) == OWN_MAX
    assert [len(each) for each in programs.set] == [OWN_MAX]
    assert said[-1] == f"uplink eth0: {OWN_MAX + 3} addresses; 3 of them stay the kernel's"


def test_what_goes_wrong_is_told_once_and_ends_nothing(tmp_path: Path, watch: Watch, programs: FakePrograms) -> None:
    watching, said = watch
    programs.addresses = ()
    for now in (0.0, 5.0, 10.0):
        watching.look(1, now)
    assert said == ["uplink eth0: eth0: no program of gazelled is attached to it"]


def test_a_rename_is_followed_and_an_interface_that_is_gone_is_told_once(
    tmp_path: Path, watch: Watch, programs: FakePrograms
) -> None:
    watching, said = watch
    programs.name = "lan0"
    watching.look(1, 0.0)
    watching.look(1, 100.0)
    programs.name = None
    watching.look(1, 200.0)
    watching.look(1, 300.0)
    assert said == [
        "eth0: the interface is called lan0 now",
        "lan0: the interface is gone, so no packet reaches the stack; once there is one again: gazelled restart",
    ]
    assert '"gone": true' in (tmp_path / UPLINK_FILE).read_text()
