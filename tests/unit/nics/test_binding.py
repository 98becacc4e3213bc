# SPDX-License-Identifier: MulanPSL-2.0
"""bind and unbind on a fake host: what they refuse, what they change, and that every failure leads back.

The host has eth0 (default route), eth1 (free, with an address, routes and an MTU of its own), eth2 (an ssh session) and
a function 0000:05:00.0 without a driver.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from fake_commands import COMMANDS, launch
from fake_kernel import FOREVER, FakeKernel

from gazelled import cli
from gazelled.base.wait import wait_for
from gazelled.host.sysfs import Host, read_interface
from gazelled.nics import binding, network
from gazelled.nics.network import capture, read_addresses, read_network, restore

GLOBAL = {"scope": "global", "valid_life_time": FOREVER, "preferred_life_time": FOREVER}
ETH1 = "0000:03:00.0"
BARE = "0000:05:00.0"


def make_host(root: Path) -> FakeKernel:
    kernel = FakeKernel(root)
    kernel.create()
    kernel.add_nic("0000:02:00.0", "igb", "eth0", "52:00:00:00:00:02", iommu_group="1")
    kernel.add_nic(ETH1, "e1000e", "enp3s0", "52:00:00:00:00:03", iommu_group="2")
    kernel.add_nic("0000:04:00.0", "igb", "eth2", "52:00:00:00:00:04", iommu_group="3")
    kernel.add_nic(BARE, "igb", "eth9", "52:00:00:00:00:05", iommu_group="4")
    kernel.unbind(BARE)
    kernel.link_set("enp3s0", "name", "eth1")
    kernel.link_set("eth1", "mtu", "1400")
    kernel.link_set("eth1", "address", "52:00:00:00:11:11")
    addresses = {
        "eth0": [("192.0.2.5", 24)],
        "eth1": [("10.1.0.5", 24), ("10.1.0.6", 24), ("fd01::5", 64)],
        "eth2": [("10.2.0.5", 24)],
    }
    for name, given in addresses.items():
        kernel.link_set(name, "up", "")
        for local, length in given:
            family = {"family": "inet6"} if ":" in local else {"family": "inet", "label": name}
            kernel.add_address(name, {**family, "local": local, "prefixlen": length, **GLOBAL})
    kernel.add_route("eth0", {"family": "-4", "dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "flags": []})
    static = {"protocol": "static", "dev": "eth1", "flags": []}
    far = {"family": "-4", "dst": "10.8.0.0/16", "gateway": "10.1.0.1", "metric": 7, "table": "99"}
    kernel.add_route("eth1", {**far, **static})
    kernel.add_route("eth1", {"family": "-4", "dst": "10.9.0.0/16", "scope": "link", **static})
    # Listed before the route its gateway is reached by, so it cannot be put back in the order of the list.
    kernel.add_route("eth1", {"family": "-4", "dst": "10.7.0.0/16", "gateway": "10.9.0.1", **static})
    kernel.add_route("eth1", {"family": "-6", "dst": "fd08::/64", "gateway": "fd01::1", "metric": 1024, **static})
    (root / "proc/net/tcp").write_text(
        "  sl  local_address rem_address   st\n"
        "   0: 00000000:0016 00000000:0000 0A\n"
        "   1: 0500020A:0016 0901020A:9C40 01\n"  # 10.2.0.5:22 from 10.2.1.9, established
        "   2: 0500010A:1F90 0901010A:9C40 01\n"  # an established connection that is not ssh
    )
    return kernel


@dataclass
class Box:
    """A fake host, the commands that change it, and gazelled on it."""

    kernel: FakeKernel
    directory: Path
    environment: pytest.MonkeyPatch

    @property
    def run_root(self) -> Path:
        return self.directory / "run"

    def state(self) -> dict[str, str]:
        """Return the whole host, gazelled's run directory included."""
        left = {f"run/{path.relative_to(self.run_root)}": "left" for path in self.run_root.glob("**/*")}
        return self.kernel.snapshot() | left

    def unordered(self) -> dict[str, object]:
        """Return the whole host, but for the order in which its interfaces have addresses and routes."""
        network = {
            name: {kind: sorted(entries, key=repr) for kind, entries in interface.items()}
            for name, interface in self.kernel.network().items()
        }
        return {**self.state(), "network.json": network}

    def trouble(self, what: str) -> None:
        """Let the fake commands misbehave, counting from now."""
        (self.directory / "count").unlink(missing_ok=True)
        self.environment.setenv("FAKE_TROUBLE", what)

    def troubled(self) -> bool:
        """Say whether the trouble was met."""
        count = self.directory / "count"
        steps = count.stat().st_size if count.exists() else 0
        return steps >= int(os.environ["FAKE_TROUBLE"].partition(":")[2])

    def recover(self) -> list[str]:
        """Do what `gazelled recover` does for NICs; an orphaned command goes on only when that has begun."""
        go, gone = self.directory / "count.go", self.directory / "count.gone"
        orphaned = os.environ["FAKE_TROUBLE"].startswith("orphan") and self.troubled()
        self.trouble("none:0")
        begun = threading.Timer(0.05, go.touch)
        begun.start()
        try:
            return binding.recover(self.run_root, lambda line: None)
        finally:
            begun.join()
            if orphaned:
                wait_for(gone.exists, 10, "the orphaned command did not end")
                gone.unlink()
            go.unlink()

    def gazelled(self, *words: str, before: Callable[[], None] | None = None) -> tuple[int, str]:
        """Run a command line in a process of its own; return its status (-9 when killed) and what it said on stderr."""
        said = self.directory / "said"
        pid = os.fork()
        if pid == 0:
            try:
                for target in (1, 2):
                    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                if before is not None:
                    before()
                status = cli.run([*words])
                sys.stderr.flush()
                os._exit(status)
            finally:
                os._exit(99)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), said.read_text()


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    commands = tmp_path / "bin"
    commands.mkdir()
    for command in COMMANDS:
        launch(commands, command)
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setenv("GAZELLED_HOST_ROOT", str(tmp_path / "host"))
    monkeypatch.setenv("GAZELLED_RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setenv("FAKE_COUNT", str(tmp_path / "count"))
    monkeypatch.setenv("FAKE_TROUBLE", "none:0")
    monkeypatch.setenv("FAKE_MODULES", "vfio-pci,uio_pci_generic")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    (tmp_path / "host").mkdir()
    (tmp_path / "run").mkdir()
    return Box(make_host(tmp_path / "host"), tmp_path, monkeypatch)


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


# Trouble at every step.

WATCHED = ("open", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "subprocess.Popen")


def die_at(wanted: int, directory: Path) -> Callable[[], None]:
    """Return what makes this process kill -9 itself before the wanted one of its steps that change or start things."""
    counted = directory / "own steps"

    def install() -> None:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event not in WATCHED:
                return
            if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                return
            if event == "subprocess.Popen" and not {"-j", "settle"}.isdisjoint(cast(list[str], arguments[1])):
                return  # it only reads: dying here is dying after the step before
            count += 1
            if count == wanted:
                os.write(os.open(counted, os.O_WRONLY | os.O_CREAT), b"met")
                os.kill(os.getpid(), signal.SIGKILL)

        counted.unlink(missing_ok=True)
        sys.addaudithook(hook)

    return install


def bound_host(box: Box) -> Path:
    """Bind eth1 and return a copy of everything, to start anew from."""
    assert box.gazelled("bind", "eth1")[0] == 0
    copy = box.directory / "copy"
    copy.mkdir()
    for name in ("host", "run"):
        shutil.copytree(box.directory / name, copy / name, symlinks=True)
    return copy


def start_anew(box: Box, copy: Path) -> None:
    for name in ("host", "run"):
        shutil.rmtree(box.directory / name)
        shutil.copytree(copy / name, box.directory / name, symlinks=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", ["fail", "kill", "orphan"])
def test_trouble_at_every_step_of_bind_leads_back(box: Box, action: str) -> None:
    before = box.state()
    for number in range(1, 100):
        box.trouble(f"{action}:{number}")
        status, said = box.gazelled("bind", "eth1")
        if not box.troubled():
            break
        assert status == (69 if action == "fail" else -signal.SIGKILL), (number, said)
        if action == "fail":
            assert box.state() == before, f"step {number}: a bind that failed left something behind"
        assert box.recover() == [], number
        assert box.state() == before, number
    assert number > 6
    assert status == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", ["fail", "kill", "orphan"])
def test_trouble_at_every_step_of_unbind_leads_back(box: Box, action: str) -> None:
    before, unordered = box.state(), box.unordered()
    copy = bound_host(box)
    for number in range(1, 100):
        box.trouble(f"{action}:{number}")
        status, said = box.gazelled("unbind", "eth1")
        if not box.troubled():
            break
        if action == "fail":  # a command that did its work before it failed is no failure
            assert status == 69 or (status == 0 and box.unordered() == unordered), (number, said)
        else:
            assert status == -signal.SIGKILL, (number, said)
        assert box.recover() == [], number
        if action == "fail":  # what came back only now is the last of its kind
            assert box.unordered() == unordered, number
        else:
            assert box.state() == before, number
        start_anew(box, copy)
    assert number > 24
    assert status == 0
    assert box.state() == before


def test_what_cannot_be_put_back_keeps_nothing_else_from_coming_back(box: Box) -> None:
    before = box.kernel.network()["eth1"]
    copy = bound_host(box)
    refused = "`ip addr add 10.1.0.6/24 scope global label eth1 dev eth1` ended with status 1: made to fail"
    for number in range(1, 100):
        box.trouble(f"fail:{number}")
        status, said = box.gazelled("unbind", "eth1")
        if refused in said:
            break
        start_anew(box, copy)
    assert status == 69
    now = box.kernel.network()["eth1"]
    missing = [each["local"] for each in before["addresses"] if each not in now["addresses"]]
    assert missing == ["10.1.0.6"]
    assert [each for each in before["routes"] if each not in now["routes"]] == []


def test_an_address_the_kernel_adds_in_the_meantime_is_no_failure(box: Box) -> None:
    host, before = Host.from_environment(), box.state()
    wanted = capture(read_interface(host, "eth1"), read_network())
    box.environment.setattr(network, "read_addresses", iter([{}, read_addresses()]).__next__)
    restore(host, wanted, "eth1")
    assert box.state() == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["bind", "unbind"])
def test_killed_before_every_step_of_its_own_it_leads_back(box: Box, command: str) -> None:
    before = box.state()
    copy = None if command == "bind" else bound_host(box)
    for number in range(1, 200):
        status, said = box.gazelled(command, "eth1", before=die_at(number, box.directory))
        if not (box.directory / "own steps").exists():
            break
        assert status == -signal.SIGKILL, (number, said)
        assert box.recover() == [], number
        assert box.state() == before, number
        if copy is not None:
            start_anew(box, copy)
    assert number > (10 if command == "bind" else 25)
    assert status == 0


@pytest.mark.timeout(300)
def test_after_a_killed_bind_bind_and_unbind_still_work(box: Box) -> None:
    before = box.state()
    for number in range(1, 100):
        box.trouble(f"kill:{number}")
        status, _ = box.gazelled("bind", "eth1")
        if not box.troubled():
            break
        box.trouble("none:0")
        for words in (["bind", "eth1"], ["unbind", "eth1"]):
            status, said = box.gazelled(*words)
            assert status == 0, (number, said)
        assert box.state() == before, number
    assert number > 6


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
