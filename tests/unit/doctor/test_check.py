# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled check` names each fault prepared in a fake host, and what mends it; a healthy host has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gazelled import cli
from gazelled.config import NetworkConfig, PortConfig, ProcessConfig, SecurityConfig, StackConfig
from gazelled.configuration.settings import Config
from gazelled.doctor.checks import exit_code, fix, look, undo
from gazelled.doctor.line import Line
from gazelled.doctor.machine import Machine
from gazelled.host.sysfs import Host
from gazelled.host.topology_probe import read_topology
from gazelled.pages import group_page, worker_page
from gazelled.pages.worker_page import ABI_VERSION
from gazelled.queue_planner import plan

CPU = "sys/devices/system/cpu"
CLOCK = "sys/devices/system/clocksource/clocksource0"


BUILD = {
    "abi_version": ABI_VERSION,
    "structs": {"gz_worker_page": {"size": worker_page.SIZE}, "gz_group_page": {"size": group_page.SIZE}},
}


@dataclass
class Patient:
    """A host below a directory, healthy as it is made, and a configuration."""

    root: Path
    stack: StackConfig = field(default_factory=StackConfig)
    cpus: tuple[int, ...] = (2, 3)
    port: PortConfig = field(default_factory=PortConfig)
    security: SecurityConfig = field(default_factory=SecurityConfig)

    def write(self, path: str, text: object) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    @property
    def run_root(self) -> Path:
        return self.root / "run/gazelled"

    def lines(self) -> list[Line]:
        host = Host(self.root)
        config = Config(
            self.stack, (ProcessConfig(cpus=self.cpus),), self.port, NetworkConfig("10.91.0.2/24"), self.security
        )
        topology = read_topology(host)
        return list(look(Machine(host, topology, plan(config, topology), self.run_root)))


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patient:
    made = Patient(tmp_path / "host")
    monkeypatch.setenv("GAZELLED_HOST_ROOT", str(made.root))
    monkeypatch.setenv("GAZELLED_RUN_ROOT", str(made.run_root))
    native = tmp_path / "native"
    monkeypatch.setenv("GAZELLED_NATIVE", str(native))
    for program, text in (
        ("lstack/lstack", f"#!/bin/sh\necho '{json.dumps(BUILD)}'\n"),
        ("shim/liblstack.so", f"gazelle ABI {ABI_VERSION}u"),
    ):
        (native / program).parent.mkdir(parents=True)
        (native / program).write_text(text)
        (native / program).chmod(0o755)
    for number in range(4):
        made.write(f"{CPU}/cpu{number}/topology/core_id", number)
        made.write(f"{CPU}/cpu{number}/topology/physical_package_id", 0)
        made.write(f"{CPU}/cpu{number}/topology/thread_siblings_list", number)
        made.write(f"{CPU}/cpu{number}/cpufreq/scaling_governor", "performance")
    made.write(f"{CPU}/online", "0-3")
    made.write(f"{CPU}/isolated", "2-3")
    made.write("sys/devices/system/node/node0/cpulist", "0-3")
    made.write("proc/meminfo", "MemTotal:  8000000 kB\nMemAvailable:  7000000 kB")
    made.write("proc/self/status", "Cpus_allowed_list:\t0-3")
    made.write("proc/self/limits", "Max open files            1048576              1048576              files")
    made.write("proc/sys/kernel/osrelease", "6.12.0-amd64")
    made.write("proc/sys/kernel/seccomp/actions_avail", "kill_process errno allow")
    made.write("proc/sys/fs/nr_open", 1048576)
    made.write("dev/net/tun", "")
    made.write(f"{CLOCK}/current_clocksource", "tsc")
    made.write(f"{CLOCK}/available_clocksource", "tsc hpet acpi_pm")
    made.write("etc/passwd", "gazelle:x:999:999::/:/usr/sbin/nologin")
    made.write("etc/group", "gazelle:x:999:")
    made.write("free_bytes", 1 << 30)
    made.write("usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_mempool_ring.so.23", "")
    return made


def old_kernel(patient: Patient) -> None:
    patient.write("proc/sys/kernel/osrelease", "5.10.0-30-amd64")


def no_seccomp(patient: Patient) -> None:
    patient.remove("proc/sys/kernel/seccomp/actions_avail")


def no_tun(patient: Patient) -> None:
    patient.remove("dev/net/tun")


def outside_the_cpuset(patient: Patient) -> None:
    patient.write("proc/self/status", "Cpus_allowed_list:\t0-2")


def an_offline_cpu(patient: Patient) -> None:
    patient.write(f"{CPU}/online", "0-2")


def siblings(patient: Patient) -> None:
    for number in (2, 3):
        patient.write(f"{CPU}/cpu{number}/topology/core_id", 2)
        patient.write(f"{CPU}/cpu{number}/topology/thread_siblings_list", "2-3")


def not_on_the_isolated_ones(patient: Patient) -> None:
    patient.cpus = (0, 1)


def polls_on_shared_cpus(patient: Patient) -> None:
    patient.write(f"{CPU}/isolated", "")
    patient.stack = StackConfig(idle="poll")


def powersave(patient: Patient) -> None:
    patient.write(f"{CPU}/cpu3/cpufreq/scaling_governor", "powersave")


def slow_clock(patient: Patient) -> None:
    patient.write(f"{CLOCK}/current_clocksource", "hpet")


def no_hugepages(patient: Patient) -> None:
    patient.port = PortConfig(driver="pci", device=("0000:03:00.0", "0000:03:00.1"), host_driver="vfio-pci")
    patient.write("sys/kernel/iommu_groups/0/type", "DMA")
    patient.write("sys/bus/pci/drivers/vfio-pci/bind", "")
    patient.write("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", 0)
    patient.write("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", 0)


def no_iommu(patient: Patient) -> None:
    no_hugepages(patient)
    patient.remove("sys/kernel/iommu_groups/0/type")
    (patient.root / "sys/kernel/iommu_groups/0").rmdir()


def no_vfio(patient: Patient) -> None:
    no_hugepages(patient)
    patient.remove("sys/bus/pci/drivers/vfio-pci/bind")
    (patient.root / "sys/bus/pci/drivers/vfio-pci").rmdir()


def no_af_xdp(patient: Patient) -> None:
    patient.port = PortConfig(driver="af_xdp", device=("eth1",))


def locked_down(patient: Patient) -> None:
    no_af_xdp(patient)
    patient.write("sys/kernel/security/lockdown", "none integrity [confidentiality]")


def few_descriptors(patient: Patient) -> None:
    patient.write("proc/sys/fs/nr_open", 65536)


def few_files(patient: Patient) -> None:
    patient.write("proc/self/limits", "Max open files            1024              1024              files")


def few_processes(patient: Patient) -> None:
    patient.write("proc/self/cgroup", "0::/small")
    patient.write("sys/fs/cgroup/small/pids.max", 32)


def no_user(patient: Patient) -> None:
    patient.write("etc/passwd", "root:x:0:0::/:/bin/sh")


def unknown_group(patient: Patient) -> None:
    patient.security = SecurityConfig(allow_groups=("webmasters",))


def other_library(patient: Patient) -> None:
    (patient.root.parent / "native/shim/liblstack.so").write_text(f"gazelle ABI {ABI_VERSION + 1}u")


def other_worker(patient: Patient) -> None:
    program = patient.root.parent / "native/lstack/lstack"
    program.write_text(program.read_text().replace(str(group_page.SIZE), str(group_page.SIZE + 8)))


def not_built(patient: Patient) -> None:
    (patient.root.parent / "native/lstack/lstack").unlink()


def no_mempool_driver(patient: Patient) -> None:
    patient.remove("usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_mempool_ring.so.23")


def full_run(patient: Patient) -> None:
    patient.write("free_bytes", 4096)


def a_crash_left_this(patient: Patient) -> None:
    patient.write("run/gazelled/blue/journal", "")


def a_device_without_an_instance(patient: Patient) -> None:
    patient.write("sys/class/net/gz-blue/ifalias", "gazelled instance blue")
    patient.run_root.mkdir(parents=True)


FAULTS: list[tuple[Callable[[Patient], None], str, str, str]] = [
    (old_kernel, "problem", "kernel", "linux-image"),
    (no_seccomp, "problem", "seccomp", "CONFIG_SECCOMP_FILTER"),
    (no_tun, "problem", "tap", "modprobe tun"),
    (outside_the_cpuset, "problem", "cpu 3", "0-2"),
    (an_offline_cpu, "problem", "cpu 3", "online"),
    (siblings, "warning", "cpus 2-3", "one CPU per core"),
    (not_on_the_isolated_ones, "warning", "isolation", 'cpus = "2-3"'),
    (polls_on_shared_cpus, "warning", "isolation", "isolcpus=2-3"),
    (powersave, "warning", "governor", "cpupower -c 3"),
    (slow_clock, "warning", "clock", "echo tsc"),
    (no_hugepages, "problem", "node 0", "nr_hugepages"),
    (no_iommu, "warning", "iommu", "intel_iommu=on"),
    (no_vfio, "warning", "vfio", "modprobe vfio-pci"),
    (no_af_xdp, "problem", "af_xdp", "CONFIG_XDP_SOCKETS"),
    (locked_down, "problem", "bpf", "lockdown=integrity"),
    (few_descriptors, "warning", "sysctl fs.nr_open", "sysctl -w fs.nr_open="),
    (few_files, "warning", "limit nofile", "limits.conf"),
    (few_processes, "warning", "limit pids", "pids.max"),
    (no_user, "problem", "user", "adduser --system"),
    (unknown_group, "problem", "attach", "addgroup --system webmasters"),
    (other_library, "problem", "versions", "one version"),
    (other_worker, "problem", "versions", "one version"),
    (not_built, "problem", "programs", "make build"),
    (no_mempool_driver, "problem", "dpdk", "apt install librte-meta-mempool"),
    (full_run, "problem", "room", "remount"),
    (a_crash_left_this, "problem", "instance blue", "gazelled recover -i blue"),
    (a_device_without_an_instance, "problem", "device gz-blue", "ip link delete gz-blue"),
]


def test_a_healthy_host_has_nothing_wrong(patient: Patient) -> None:
    lines = patient.lines()
    assert [line for line in lines if line.level != "ok"] == []
    assert exit_code(lines) == 0


@pytest.mark.parametrize(
    ("prepare", "level", "subject", "command"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS]
)
def test_each_prepared_fault_is_named_with_its_remedy(
    patient: Patient, prepare: Callable[[Patient], None], level: str, subject: str, command: str
) -> None:
    prepare(patient)
    lines = patient.lines()
    found = [line for line in lines if line.subject.startswith(subject) and line.level == level]
    assert found, lines
    assert command in found[0].command
    assert found[0].cost
    assert exit_code(lines) == (1 if level == "warning" and "problem" not in {line.level for line in lines} else 2)


def test_what_is_mended_is_put_back_by_recover(patient: Patient) -> None:
    powersave(patient)
    slow_clock(patient)
    asked: list[str] = []

    def agreed(question: str) -> bool:
        asked.append(question)
        return "governor" in question

    assert fix(patient.lines(), agreed, lambda _: None) == 1
    governor, clock = f"{CPU}/cpu3/cpufreq/scaling_governor", f"{CLOCK}/current_clocksource"
    assert len(asked) == 2
    assert (patient.root / governor).read_text().strip() == "performance"
    assert (patient.root / clock).read_text().strip() == "hpet"
    assert [line.subject for line in patient.lines() if line.level != "ok"] == ["clock"]
    assert undo(lambda _: None) == []
    assert (patient.root / governor).read_text().strip() == "powersave"
    assert not (patient.run_root / "host").exists()


def test_the_command_says_it_in_json_and_by_its_status(
    patient: Patient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_user(patient)
    (tmp_path / "broken.toml").write_text("[stack]\nspin_us = 0\n")
    assert cli.run(["check", "--json", "-c", str(tmp_path / "broken.toml")]) == 2
    said = {line["subject"]: line for line in json.loads(capsys.readouterr().out)}
    assert "broken.toml:2" in said["configuration"]["found"]
    assert "adduser" in said["user"]["command"]
    assert cli.run(["check", "-q", "-c", str(tmp_path / "broken.toml")]) == 2
    shown = capsys.readouterr().out
    assert "mend:  adduser" in shown
    assert "seccomp" not in shown
