# SPDX-License-Identifier: MulanPSL-2.0
"""bind, unbind and nics on a fake host (nic_box.py): what they refuse and what they change."""

from __future__ import annotations

import json

import pytest
from nic_box import BARE, ETH1, GLOBAL, Box


def test_bind_takes_a_nic_and_unbind_gives_it_back_as_it_was(box: Box) -> None:
    before = box.state()
    status, said = box.gazelled("bind", "eth1")
    assert status == 0, said
    assert "binding eth1 (0000:03:00.0) from e1000e to vfio-pci" in said
    assert box.kernel.driver(ETH1) == "vfio-pci"
    assert "eth1" not in box.kernel.network()
    status, said = box.gazelled("unbind", "eth1")
    assert status == 0, said
    assert box.state() == before


@pytest.mark.parametrize("name", [ETH1, "03:00.0", "eth1"])
def test_bind_and_unbind_twice_are_no_error_under_any_name(box: Box, name: str) -> None:
    before = box.state()
    assert box.gazelled("bind", name)[0] == 0
    bound = box.state()
    status, said = box.gazelled("bind", name)
    assert (status, said) == (0, f"{ETH1}: already bound to vfio-pci, nothing to do\n")
    assert box.state() == bound
    assert box.gazelled("unbind", name)[0] == 0
    status, said = box.gazelled("unbind", name)
    assert (status, said) == (0, f"eth1 ({ETH1}): not bound, its driver is e1000e; nothing to do\n")
    assert box.state() == before


def test_a_nic_without_a_driver_gets_none_back(box: Box) -> None:
    before = box.state()
    assert box.gazelled("bind", BARE, "--driver", "uio_pci_generic")[0] == 0
    assert box.kernel.driver(BARE) == "uio_pci_generic"
    assert box.gazelled("unbind", BARE)[0] == 0
    assert box.state() == before


def test_the_module_stays_while_another_nic_needs_it(box: Box) -> None:
    before = box.state()
    for name in (ETH1, BARE):
        assert box.gazelled("bind", name)[0] == 0
    assert box.gazelled("unbind", ETH1)[0] == 0
    assert (box.kernel.drivers / "vfio-pci").exists()
    assert box.gazelled("unbind", BARE)[0] == 0
    assert box.state() == before


def test_recover_undoes_every_bind(box: Box) -> None:
    before = box.state()
    assert box.gazelled("recover")[0] == 0
    for name in (ETH1, BARE):
        assert box.gazelled("bind", name)[0] == 0
    status, said = box.gazelled("recover")
    assert status == 0, said
    assert f"undone: eth1 ({ETH1}) from e1000e to vfio-pci" in said
    assert box.state() == before


def test_an_address_given_meanwhile_is_not_taken_away(box: Box) -> None:
    assert box.gazelled("bind", "eth1")[0] == 0
    box.kernel.add_address("eth0", {"family": "inet", "local": "192.0.2.77", "prefixlen": 24, **GLOBAL})
    assert box.gazelled("unbind", "eth1")[0] == 0
    assert [each["local"] for each in box.kernel.network()["eth0"]["addresses"]][-1] == "192.0.2.77"


# What is refused, and that nothing is touched then.


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eth0", "carries the default route"),
        ("eth2", "carries the ssh session from 10.2.1.9 to 10.2.0.5"),
    ],
)
def test_a_nic_the_host_is_reached_by_is_refused_without_force(box: Box, name: str, reason: str) -> None:
    before = box.state()
    status, said = box.gazelled("bind", name)
    assert status == 69
    assert f"refused: it {reason}" in said
    assert box.state() == before
    status, said = box.gazelled("bind", name, "--force")
    assert status == 0
    assert f"forced although it {reason}" in said
    assert box.gazelled("unbind", name)[0] == 0
    assert box.state() == before


def test_our_own_ssh_session_counts_whatever_its_port(box: Box) -> None:
    box.environment.setenv("SSH_CONNECTION", "10.1.0.99 50000 10.1.0.6 2222")
    status, said = box.gazelled("bind", "eth1")
    assert status == 69
    assert "refused: it carries the ssh session from 10.1.0.99 to 10.1.0.6" in said


def test_an_ssh_session_over_ipv6_counts(box: Box) -> None:
    local = "".join(bytes.fromhex(word)[::-1].hex() for word in ("fd010000", "00000000", "00000000", "00000005"))
    header = "  sl  local_address remote_address st\n"
    (box.kernel.root / "proc/net/tcp6").write_text(f"{header}   0: {local}:0016 {local}:9C40 01\n")
    status, said = box.gazelled("bind", "eth1")
    assert status == 69
    assert "ssh session from fd01::5 to fd01::5" in said


def test_the_default_route_of_what_is_on_top_counts(box: Box) -> None:
    bridge = box.kernel.root / "sys/devices/virtual/net/br0"
    bridge.mkdir(parents=True)
    (box.kernel.net / "br0").symlink_to("../../devices/virtual/net/br0")
    for link in ("upper_br0", "master"):
        (box.kernel.net / "eth1" / link).symlink_to(bridge)
    network = box.kernel.network()
    network["br0"] = {"addresses": [], "routes": [{"family": "-6", "dst": "default", "dev": "br0"}]}
    box.kernel.save(network)
    before = box.state()
    status, said = box.gazelled("bind", "eth1")
    assert status == 69
    assert "carries the default route (through br0) and is a port of br0" in said
    assert box.state() == before


def test_what_nothing_could_put_back_is_refused_even_with_force(box: Box) -> None:
    (box.kernel.pci_devices / ETH1 / "sriov_numvfs").write_text("2\n")
    (box.kernel.net / "eth1" / "upper_eth1.7").symlink_to("nowhere")
    before = box.state()
    status, said = box.gazelled("bind", "eth1", "--force")
    assert status == 69
    assert "has eth1.7 on top of it, which would vanish and has 2 virtual functions, which would vanish" in said
    assert box.state() == before


def test_a_route_gazelled_cannot_put_back_is_named(box: Box) -> None:
    network = box.kernel.network()
    network["eth1"]["routes"].append({"family": "-4", "dst": "10.7.0.0/16", "encap": "mpls", "dev": "eth1"})
    box.kernel.save(network)
    status, said = box.gazelled("bind", "eth1")
    assert status == 69
    assert "has a route to 10.7.0.0/16 that gazelled cannot put back (encap)" in said


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["bind", "eth7"], 64, "eth7: no such NIC (this host's: eth0 (0000:02:00.0), eth1"),
        (["unbind", "eth7"], 64, "eth7: no such NIC"),
        (["bind", "eth1", "--driver", "e1000e"], 64, "e1000e: not a driver for DPDK (allowed: vfio-pci"),
        (["bind", "eth1", "--driver", "igb_uio"], 69, "FATAL: Module igb_uio not found"),
    ],
)
def test_a_wrong_wish_changes_nothing(box: Box, words: list[str], status: int, reason: str) -> None:
    before = box.state()
    found, said = box.gazelled(*words)
    assert found == status
    assert reason in said
    assert box.state() == before


def test_without_an_iommu_the_hint_tells_the_honest_ways_out(box: Box) -> None:
    (box.kernel.pci_devices / ETH1 / "iommu_group").unlink()
    before = box.state()
    status, said = box.gazelled("bind", "eth1")
    assert status == 69
    assert "vfio-pci needs an IOMMU" in said
    assert "enable_unsafe_noiommu_mode" in said
    assert box.state() == before


def test_a_nic_bound_by_somebody_else_is_not_ours_to_unbind(box: Box) -> None:
    box.kernel.load("vfio-pci")
    box.kernel.unbind(ETH1)
    (box.kernel.pci_devices / ETH1 / "driver_override").write_text("vfio-pci\n")
    box.kernel.bind(ETH1, "vfio-pci")
    before = box.state()
    assert box.gazelled("bind", ETH1)[0] == 0
    status, said = box.gazelled("unbind", ETH1)
    assert status == 69
    assert "bound to vfio-pci, but not by gazelled" in said
    assert box.state() == before


def test_a_nic_of_a_running_instance_is_its_own(box: Box) -> None:
    assert box.gazelled("bind", "eth1")[0] == 0
    (box.run_root / "nics").rename(box.run_root / "web")
    status, said = box.gazelled("unbind", "eth1")
    assert status == 69
    assert "bound by the instance web" in said
    assert "gazelled stop -i web" in said


def test_a_nic_a_process_holds_open_is_not_pulled_from_under_it(box: Box) -> None:
    assert box.gazelled("bind", "eth1")[0] == 0
    process = box.kernel.root / "proc/4711/fd"
    process.mkdir(parents=True)
    (process / "8").symlink_to("/dev/vfio/2")
    (process.parent / "comm").write_text("testpmd\n")
    status, said = box.gazelled("unbind", "eth1")
    assert status == 69
    assert "in use by process 4711 (testpmd)" in said
    assert box.kernel.driver(ETH1) == "vfio-pci"


def test_devbind_that_says_nothing_is_not_believed(box: Box) -> None:
    before = box.state()
    box.environment.setenv("FAKE_LAZY_DEVBIND", "1")
    status, said = box.gazelled("bind", "eth1")
    assert status == 69
    assert "dpdk-devbind left it with driver e1000e instead of vfio-pci: Warning: routing table" in said
    assert box.state() == before


def test_a_missing_program_is_named(box: Box) -> None:
    (box.directory / "bin" / "dpdk-devbind.py").unlink()
    before = box.state()
    status, said = box.gazelled("bind", "eth1")
    assert status == 69
    assert "dpdk-devbind.py: no such program on PATH" in said
    assert box.state() == before


# The list.


def test_nics_says_what_each_is_used_for(box: Box) -> None:
    status, said = box.gazelled("nics", "--json")
    assert status == 0
    rows = {row["pci"]: row for row in json.loads(said)}
    assert rows[ETH1] == {
        "name": "eth1",
        "pci": ETH1,
        "driver": "e1000e",
        "numa": 0,
        "queues": 2,
        "mac": "52:00:00:00:11:11",
        "addresses": ["10.1.0.5/24", "10.1.0.6/24", "fd01::5/64"],
        "link": "up",
        "in_use": ["has the address 10.1.0.5/24, 10.1.0.6/24, fd01::5/64"],
        "usable": "pci after `bind`, af_xdp without its addresses",
    }
    assert rows["0000:02:00.0"]["in_use"][0] == "carries the default route"
    assert rows["0000:02:00.0"]["usable"].startswith("pci by `bind --force`")
    assert rows[BARE]["name"] == rows[BARE]["driver"] == ""


def test_the_table_ends_with_the_next_step(box: Box) -> None:
    status, said = box.gazelled("nics")
    assert status == 0
    assert said.splitlines()[-1] == f"4 NICs; free for DPDK: eth1, {BARE}. Next: gazelled bind eth1"
    assert box.gazelled("bind", "eth1")[0] == 0
    assert "pci (bound to vfio-pci)" in box.gazelled("nics")[1]
