# SPDX-License-Identifier: MulanPSL-2.0
"""An instance of gazelled that the run starts for itself: on a tap of its own, or on a veth by an uplink or af_xdp."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kit.lab import REPOSITORY

from bench.lab import BenchError, Lab, end_of_output, run
from gazelled.base.run_root import run_root
from gazelled.pages.worker_page import WorkerPage

_COMMAND_S = 60.0
# A counter by another checkout's own reader, wherever that lies there: argv is its directory, the run directory, the
# counter.
_COUNTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
try:
    from gazelled.pages.worker_page import WorkerPage
except ModuleNotFoundError:
    from gazelled.worker_page import WorkerPage
print(sum(WorkerPage(path).counters()[sys.argv[3]] for path in Path(sys.argv[2]).glob("worker.*.page")))
"""


class Instance:
    """One instance; it is stopped and its traces removed by the lab."""

    def __init__(self, lab: Lab, role: str, toml: str, address: str, checkout: Path = REPOSITORY) -> None:
        self.lab, self.address, self.checkout = lab, address, checkout
        self.name = lab.prefix + role
        self.config = lab.directory / f"{self.name}.toml"
        self.config.write_text(toml)
        self.run_dir = run_root() / self.name
        self.environment: dict[str, str] = {}
        self._started = False
        self._pids: list[int] = []  # of the workers, where their pages may be of another version
        lab.later(self._clean_up)

    def command(self, *words: str, seconds: float = _COMMAND_S) -> subprocess.CompletedProcess[str]:
        """Run a gazelled command for this instance, however it ends."""
        argv = [
            *("ip", "netns", "exec", self.lab.home),  # with its own /sys: the devices of this namespace
            self._python,
            "-m",
            "gazelled",
            words[0],
            "-i",
            self.name,
            *words[1:],
        ]
        try:
            return subprocess.run(
                argv, capture_output=True, text=True, timeout=seconds, cwd=self.checkout, stdin=subprocess.DEVNULL,
                process_group=0, env=self._own_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BenchError(f"gazelled {words[0]}: not done after {seconds:g} s") from None

    @property
    def _python(self) -> str:
        return sys.executable if self.checkout == REPOSITORY else str(self.checkout / ".venv/bin/python")

    def _own_environment(self) -> dict[str, str]:
        """Return what its commands find in their environment: another checkout takes what is built there."""
        foreign = self.checkout != REPOSITORY
        return {key: value for key, value in os.environ.items() if not (foreign and key == "GAZELLED_NATIVE")}

    @property
    def peers(self) -> tuple[str, str]:
        """Return the addresses clients on the other side of its device have."""
        net = self.address.rsplit(".", 1)[0]
        return f"{net}.1", f"{net}.3"

    def start(self) -> float:
        """Start it; return the seconds from the command to all workers ready. BenchError with the reason if not."""
        self._started = True
        before = time.monotonic()
        done = self.command("start", "-c", str(self.config))
        took = time.monotonic() - before
        if done.returncode != 0:
            raise BenchError(f"gazelled start: status {done.returncode}: {end_of_output(done.stdout + done.stderr)}")
        self.environment = self._attach_environment()
        return took

    def stop(self) -> None:
        """Stop it."""
        if not self._started:
            return
        done = self.command("stop")
        if done.returncode != 0:
            raise BenchError(f"gazelled stop: status {done.returncode}: {end_of_output(done.stdout + done.stderr)}")
        self._started = False

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        done = self.command("status", "--json")
        if not done.stdout:
            raise BenchError(f"gazelled status: status {done.returncode}: {end_of_output(done.stderr)}")
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def workers(self) -> list[int]:
        """Return the pids of its workers, from their pages: no command, so that a load is not disturbed."""
        if self.checkout != REPOSITORY:
            if not (self._pids and all(Path(f"/proc/{pid}").exists() for pid in self._pids)):
                self._pids = [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]
            return self._pids
        found = []
        for path in sorted(self.run_dir.glob("worker.*.page")):
            page = WorkerPage(path)
            try:
                found.append(page.pid)
            finally:
                page.close()
        return [pid for pid in found if pid]

    def supervisor(self) -> int:
        """Return the supervisor's pid."""
        return int(self.status()["pid"])

    def counter(self, name: str) -> int:
        """Return a counter, summed over the workers."""
        if self.checkout != REPOSITORY:
            return int(run(self._python, "-c", _COUNTER, str(self.checkout), str(self.run_dir), name))
        total = 0
        for path in sorted(self.run_dir.glob("worker.*.page")):
            page = WorkerPage(path)
            try:
                total += page.counters()[name]
            finally:
                page.close()
        return total

    def _attach_environment(self) -> dict[str, str]:
        """Return what `gazelled run` adds to a program's environment.

        Loads are started with it directly: `run` itself is a Python program, and its 100 ms of CPU would be counted
        as the client's.
        """
        script = "import json, os; print(json.dumps(dict(os.environ)))"
        done = self.command("run", "--", sys.executable, "-c", script)
        if done.returncode != 0:
            raise BenchError(f"gazelled run: status {done.returncode}: {end_of_output(done.stdout + done.stderr)}")
        whole: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
        return {key: value for key, value in whole.items() if value != os.environ.get(key) and key != "_"}

    def _clean_up(self) -> None:
        if self._started or self.run_dir.exists():
            for word in ("stop", "recover"):
                if not self.run_dir.exists():
                    break
                try:
                    self.command(word)
                except BenchError as error:
                    print(f"bench: {self.name}: {error}", file=sys.stderr)
        if self.run_dir.exists():
            print(f"bench: {self.name}: left {self.run_dir}", file=sys.stderr)


def _toml(lab: Lab, cpus: list[int], port: str, address: str) -> str:
    return f"""
[[process]]
cpus = {cpus}
[port]
{port}
[network]
host_addr = "{address}/24"
"""


def on_tap(lab: Lab, role: str = "t", workers: int = 1, net: int = 91, checkout: Path = REPOSITORY) -> Instance:
    """Make an instance on a tap; its peer is the kernel of the same namespace."""
    cpus = [lab.worker_cpu] if workers == 1 else sorted(os.sched_getaffinity(0))[:workers]
    address = f"10.{net}.0.2"
    return Instance(lab, role, _toml(lab, cpus, 'driver = "tap"', address), address, checkout)


def on_veth(lab: Lab, role: str = "x", net: int = 92, checkout: Path = REPOSITORY) -> Instance:
    """Make an instance on one end of a veth pair by af_xdp; its peer is the kernel of the clients' namespace."""
    ours, theirs, address = f"b{role}0", f"b{role}1", f"10.{net}.0.2"
    lab.veth(lab.home, ours, theirs, 1)
    lab.address(theirs, f"10.{net}.0.1/24", lab.client)
    port = f'driver = "af_xdp"\ndevice = "{ours}"\nrx_queue_size = 2048\ntx_queue_size = 2048'
    return Instance(lab, role, _toml(lab, [lab.worker_cpu], port, address), address, checkout)


def on_uplink(lab: Lab, role: str = "n", net: int = 94, checkout: Path = REPOSITORY) -> Instance:
    """Make an instance beside the kernel on one end of a veth pair; its peer is the kernel of the clients' namespace.

    Of the interface's two addresses the second is for servers on the kernel (`kernels_own`).
    """
    ours, theirs, address = f"b{role}0", f"b{role}1", f"10.{net}.0.2"
    lab.veth(lab.home, ours, theirs, 1)
    for own in (address, kernels_own(address)):
        lab.address(ours, f"{own}/24", lab.home)
    lab.address(theirs, f"10.{net}.0.1/24", lab.client)
    toml = f"""
[[process]]
cpus = {[lab.worker_cpu]}
[port]
uplink = "{ours}"
"""
    return Instance(lab, role, toml, address, checkout)


def kernels_own(address: str) -> str:
    """Return the address of an uplink's interface that servers beside the stack bind."""
    return address.rsplit(".", 1)[0] + ".4"


def tap_device(instance: Instance) -> str:
    """Return the name of the device that carries the first peer address."""
    peer = instance.address.rsplit(".", 1)[0] + ".1"
    found: list[dict[str, Any]] = json.loads(run("ip", "-n", instance.lab.home, "-j", "address", "show", "to", peer))
    names = [each["ifname"] for each in found if each.get("ifname")]
    if not names:
        raise BenchError(f"no device of {instance.name} has the address {peer}")
    return str(names[0])
