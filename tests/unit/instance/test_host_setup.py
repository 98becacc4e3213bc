# SPDX-License-Identifier: MulanPSL-2.0
"""What start refuses before it touches the host."""

from dataclasses import replace
from pathlib import Path

import pytest
from machines import machine, on_port, plain

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.host.journal import Journal
from gazelled.host.sysfs import Host
from gazelled.instance.host_setup import prepare
from gazelled.planning.plan import Plan
from gazelled.planning.topology import Hugepages, Nic, Topology
from gazelled.queue_planner import plan


def topology(free: int) -> Topology:
    """Return a machine with a NIC for DPDK and 64 hugepages."""
    nic = Nic(name="", pci="0000:03:00.0", numa=0, driver="", queues=1, mac="", addresses=())
    return replace(machine(), nics=(nic,), hugepages=(Hugepages(0, 2048, 64, free),))


def pci_plan(free: int) -> Plan:
    return plan(on_port(plain([0]), "pci", "0000:03:00.0"), topology(free))


class FakeHost:
    """A host's hugepages below a directory."""

    def __init__(self, root: Path) -> None:
        self.pages = root / "sys/devices/system/node/node0/hugepages/hugepages-2048kB"
        self.pages.mkdir(parents=True)
        (root / "sys/devices/system/node/online").write_text("0\n")
        self.host = Host(root)

    def has(self, total: int, free: int) -> Host:
        (self.pages / "nr_hugepages").write_text(f"{total}\n")
        (self.pages / "free_hugepages").write_text(f"{free}\n")
        return self.host


def test_hugepages_that_others_use_are_not_counted_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    planned = pci_plan(free=4)
    assert not planned.errors  # the planner cannot know whether it is this instance that has them
    wanted = planned.host.hugepages[0].pages
    journal = Journal(tmp_path / "journal")
    with pytest.raises(GazelledError) as refused:
        prepare(planned, journal, print, FakeHost(tmp_path / "host").has(64, 4))
    assert f"need {wanted} hugepages of 2 MiB, 4 are free" in str(refused.value)
    assert f"echo {64 + wanted - 4} > /sys/devices/system/node/node0/hugepages" in (refused.value.hint or "")
    assert refused.value.exit_code == ExitCode.UNAVAILABLE
    assert not (tmp_path / "journal").exists()  # nothing was touched
