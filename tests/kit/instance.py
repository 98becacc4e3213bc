# SPDX-License-Identifier: MulanPSL-2.0
"""An instance of gazelled of a test's own: in its own namespace, on a tap or on a veth by af_xdp."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gazelled.instance.run_dir import RunDir
from gazelled.observe.status import read_status
from gazelled.pages.worker_page import WorkerPage
from kit.lab import Kit, Process, cpus
from kit.namespaces import Namespace
from kit.waiting import until

RUN_ROOT = Path(os.environ.get("GAZELLED_RUN_ROOT", "/run/gazelled"))
_COMMAND_S = 60
_CLONE_NEWNET = 0x40000000
EVERYBODY = 'allow_users = ["*"]'  # programs of several users meet in many tests; who may attach is tested by itself


@dataclass(frozen=True)
class Instance:
    """One instance. `home` is where it runs, `client` where its peers are; `address` is the stack's."""

    kit: Kit
    name: str
    home: Namespace
    client: Namespace
    address: str
    peer: str  # address of the client's side
    device: str
    config: Path
    middle: Namespace | None = None  # where a relay connects the two, see `on_veth`

    @property
    def run_dir(self) -> Path:
        """Return its run directory."""
        return RUN_ROOT / self.name

    def argv(self, *command: str) -> list[str]:
        """Return the command line of a gazelled command, for this instance."""
        return [sys.executable, "-m", "gazelled", command[0], "-i", self.name, *command[1:]]

    def call(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a gazelled command, however it ends."""
        return self.home.try_run(*self.argv(*command), timeout=_COMMAND_S, env=env)

    def start(self) -> None:
        """Start it and return when all workers are ready."""
        done = self.call("start", "-c", str(self.config))
        assert done.returncode == 0, f"start: status {done.returncode}\n{done.stdout}{done.stderr}{self.logs()}"

    def stop(self) -> None:
        """Stop it; nothing of it is left then."""
        done = self.call("stop")
        assert done.returncode == 0, f"stop: status {done.returncode}\n{done.stdout}{done.stderr}"
        assert self.left_over() == []

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says, without the command: tests ask thousands of times."""
        said: dict[str, Any] = json.loads(json.dumps(read_status(RunDir(self.run_dir)).to_dict()))
        return said

    def worker(self, queue_id: int) -> dict[str, Any]:
        """Return the row of one worker."""
        rows = {row["queue_id"]: row for row in self.status()["workers"]}
        row: dict[str, Any] = rows[queue_id]
        return row

    def supervisor_pid(self) -> int:
        """Return the supervisor's pid."""
        return int(self.status()["pid"])

    def plan(self) -> dict[str, Any]:
        """Return the plan that runs."""
        plan: dict[str, Any] = json.loads((self.run_dir / "plan.json").read_text())
        return plan

    def page(self, queue_id: int) -> WorkerPage:
        """Map a worker's page."""
        page = WorkerPage(self.run_dir / f"worker.{queue_id}.page")
        self.kit.later(page.close)
        return page

    def attached(self, *command: str, group: int = 0) -> list[str]:
        """Return the command line of a program that runs on the stack, by default on its first process group."""
        return self.argv("run", "--process-index", str(group), "--", *command)

    def spawn(self, *command: str, group: int = 0) -> Process:
        """Start a program on the stack; its pid is its own, `run` replaces itself by it."""
        return self.kit.spawn(self.home, *self.attached(*command, group=group))

    def attach_environment(self) -> dict[str, str]:
        """Return what `run` adds to a program's environment, for tests that start thousands of programs."""
        show = "import json, os; print(json.dumps(dict(os.environ)))"
        done = self.home.run(*self.attached(sys.executable, "-c", show))
        whole: dict[str, str] = json.loads(done.strip().splitlines()[-1])
        return {key: value for key, value in whole.items() if key == "LD_PRELOAD" or key.startswith("GAZELLED_")}

    def left_over(self) -> list[str]:
        """Return what should not exist once it is stopped: files, devices, processes."""
        left = [str(self.run_dir)] if self.run_dir.exists() else []
        left += [str(path) for path in Path("/var/run/dpdk").glob(f"gz-{self.name}-*")]
        if f" {self.device}:" in self.home.run("ip", "-o", "link") and self.device.startswith("gz-"):
            left.append(f"device {self.device}")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if f"{self.run_dir}/" in command or f"-i {self.name} " in command:
                    left.append(f"process {entry.name}: {command.strip()}")
        return left

    def logs(self) -> str:
        """Return the last lines of every log, for messages of failed tests."""
        texts = [""]
        for log in self.run_dir.glob("*.log"):
            texts += [f"--- {log}", *log.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(texts)

    def _clean_up(self) -> None:
        if self.left_over():
            self.call("stop")
        if self.left_over():
            self.call("recover")


def _instance(kit: Kit, home: Namespace, client: Namespace, net: int, device: str | None, toml: str) -> Instance:
    name = kit.prefix
    config = kit.directory / "gazelle.toml"
    config.write_text(toml)
    instance = Instance(kit, name, home, client, f"10.{net}.0.2", f"10.{net}.0.1", device or f"gz-{name}", config)
    kit.later(instance._clean_up)
    return instance


def on_tap(
    kit: Kit,
    workers: int,
    stack: str = "",
    split: bool = False,
    ipv6: bool = False,
    routed: bool = False,
    security: str = EVERYBODY,
    groups: int = 1,
) -> Instance:
    """Make an instance on a tap of its own; its peer is the kernel of the same namespace.

    With `split`, half of the workers serve accepted connections and the other half outgoing ones. `groups` is the
    number of process groups, which share the workers evenly.
    With `ipv6` both sides have addresses of that, too: fd00:91::2 and fd00:91::1. If `routed`, the peer is the way out.
    """
    home = kit.namespace("s")
    if ipv6:
        home.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
    own, each = cpus(workers), workers // groups
    process = f"cpus = {own[:each]}" + "".join(
        f"\n[[process]]\ncpus = {own[first : first + each]}" for first in range(each, workers, each)
    )
    if split:
        process = f"recv_cpus = {own[::2]}\nsend_cpus = {own[1::2]}"
    toml = f"""
[stack]
{stack}
[[process]]
{process}
[network]
host_addr = "10.91.0.2/24"
{'gateway_addr = "10.91.0.1"' if routed else ""}
{'host_addr6 = "fd00:91::2/64"' if ipv6 else ""}
{'gateway_addr6 = "fd00:91::1"' if routed and ipv6 else ""}
[security]
{security}
"""
    return _instance(kit, home, home, 91, None, toml)


def on_nothing(kit: Kit, workers: int, security: str = EVERYBODY) -> Instance:
    """Make an instance without a device: its programs reach each other, and nobody else."""
    home = kit.namespace("s")
    toml = f"""
[[process]]
cpus = {cpus(workers)}
[port]
driver = "none"
[network]
host_addr = "10.91.0.2/24"
[security]
{security}
"""
    return _instance(kit, home, home, 91, None, toml)


def on_veth(kit: Kit, workers: int, stack: str = "", relayed: bool = False, ipv6: bool = False) -> Instance:
    """Make an instance on one end of a veth pair by af_xdp; its peer is the kernel of another namespace.

    When `relayed`, the two ends lead to a third namespace, and what lies between them is a frame_relay there.
    """
    home, client = kit.namespace("s"), kit.namespace("c")
    middle = kit.namespace("m") if relayed else None
    if middle is not None:
        home.connect("gzs", middle, "ma", workers)
        client.connect("gzc", middle, "mb")
        client.run("ethtool", "-K", "gzc", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
    else:
        home.connect("gzs", client, "gzc", workers)
    client.run("ip", "address", "add", "10.92.0.1/24", "dev", "gzc")
    if ipv6:
        client.run("sysctl", "-qw", "net.ipv6.conf.gzc.disable_ipv6=0")
        client.run("ip", "-6", "address", "add", "fd00:92::1/64", "dev", "gzc", "nodad")
    toml = f"""
[stack]
{stack}
[[process]]
cpus = {cpus(workers)}
[port]
driver = "af_xdp"
device = "gzs"
rx_queue_size = 2048
tx_queue_size = 2048
[network]
host_addr = "10.92.0.2/24"
{'host_addr6 = "fd00:92::2/64"' if ipv6 else ""}
[security]
{EVERYBODY}
"""
    return replace(_instance(kit, home, client, 92, "gzs", toml), middle=middle)


def on_uplink(kit: Kit, workers: int, over: str = "veth", ipv6: bool = False, net: int = 93) -> Instance:
    """Make an instance beside the kernel on a namespace's only interface; its peer is the kernel of another namespace.

    `over` says what the interface is: "veth", a "bridge" that one is a port of, or a "macvlan" on one.
    """
    home, client = kit.namespace("s"), kit.namespace("c")
    home.connect("gzs", client, "gzc", workers)
    names = {home: {"veth": "gzs", "bridge": "gzsb", "macvlan": "gzsm"}[over], client: "gzc"}
    if over == "bridge":
        home.run("ip", "link", "add", "gzsb", "type", "bridge")
        home.run("ip", "link", "set", "gzs", "master", "gzsb")
    elif over == "macvlan":
        home.run("ip", "link", "add", "link", "gzs", "name", "gzsm", "type", "macvlan")
    for namespace in (home, client):
        address = {home: "2", client: "1"}[namespace]
        namespace.run("ip", "link", "set", names[namespace], "up")
        namespace.run("ip", "address", "add", f"10.{net}.0.{address}/24", "dev", names[namespace])
        if ipv6:
            namespace.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")  # lo, too
            namespace.run("ip", "-6", "address", "add", f"fd00:{net}::{address}/64", "dev", names[namespace], "nodad")
    toml = f"""
[[process]]
cpus = {cpus(workers)}
[port]
uplink = "{names[home]}"
rx_queue_size = 1024
tx_queue_size = 1024
"""
    return _instance(kit, home, client, net, None, toml)


@contextmanager
def in_namespace(instance: Instance) -> Iterator[None]:
    """Run this thread in the client's namespace."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{instance.client.name}", os.O_RDONLY)
    try:
        _setns(there)
        yield
    finally:
        _setns(own)
        os.close(own)
        os.close(there)


def _setns(fd: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def started(kit: Kit, port: str, workers: int) -> Instance:
    """Make and start an instance on "tap" or "veth"."""
    instance = (on_tap if port == "tap" else on_veth)(kit, workers)
    instance.start()
    return instance


def accelerated(instance: Instance) -> None:
    """Assert that every socket of the attached programs took the stack, none the kernel."""
    status = instance.status()
    sockets = status["sockets"]
    assert sockets["accelerated"] > 0
    assert not any(sockets["kernel"].values()), f"{sockets} {status['uplink']}\n{instance.logs()}"


def wait_running(instance: Instance, queue_id: int, not_pid: int, seconds: float = 10.0) -> dict[str, Any]:
    """Wait until a worker runs again as another process than before."""

    def look() -> dict[str, Any] | None:
        row = instance.worker(queue_id)
        return row if row["state"].lower() == "running" and row["pid"] not in (None, not_pid) else None

    row = until(look, f"worker {queue_id} to run again", seconds)
    assert row is not None
    return row
