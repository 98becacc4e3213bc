# SPDX-License-Identifier: MulanPSL-2.0
"""What is installed and what runs: programs of one version, the user of workers, room, and what a crash left."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gazelled.base import command
from gazelled.base.errors import GazelledError
from gazelled.base.native_build import shim_library, worker_program
from gazelled.base.sizes import iec
from gazelled.configuration.settings import OWN_NAME
from gazelled.doctor.line import Line, ok, problem, warning
from gazelled.doctor.machine import Machine
from gazelled.instance.access import attachers, may_attach
from gazelled.instance.reach import answering
from gazelled.instance.run_dir import RunDir, live_supervisor
from gazelled.pages import group_page, worker_page
from gazelled.pages.run_memory import run_dir_bytes
from gazelled.pages.worker_page import ABI_VERSION
from gazelled.planning.plan import Plan

_LIBRARY_MARK = re.compile(rb"gazelle ABI (\d+)")


def look(machine: Machine) -> Iterator[Line]:
    """Look at the installation and at every instance's run directory."""
    yield from _user(machine)
    yield from _attach(machine)
    yield from _versions()
    yield from _drivers(machine)
    yield from _room(machine)
    yield from _left_over(machine)


def _user(machine: Machine) -> Iterator[Line]:
    missing = [what for what, file in (("user", "passwd"), ("group", "group")) if not machine.account(file, OWN_NAME)]
    if missing:
        yield problem(
            "user",
            f"there is no {' and no '.join(missing)} {OWN_NAME}",
            "workers have nobody to become, and `start` refuses",
            f"adduser --system --group --no-create-home --home /nonexistent {OWN_NAME}",
        )
    else:
        yield ok("user", f"workers become user {OWN_NAME}")


def _attach(machine: Machine) -> Iterator[Line]:
    security = machine.plan.security
    names = [("user", "passwd", each) for each in security.users] + [
        ("group", "group", each) for each in security.groups if each != OWN_NAME
    ]
    unknown = [
        f"{what} {name}" for what, file, name in names if isinstance(name, str) and not machine.account(file, name)
    ]
    if unknown:
        yield problem(
            "attach",
            f"[security] names {', '.join(unknown)}, which this host does not know",
            "`start` refuses",
            f"add{unknown[0].split()[0]} --system {unknown[0].split()[1]}",
        )
    elif not may_attach(security):
        yield warning(
            "attach",
            f"the user who asks may not: {attachers(security)}",
            "`gazelled run` refuses",
            f'adduser "$USER" {OWN_NAME}, then log in again',
        )
    else:
        yield ok("attach", attachers(security))


def _versions() -> Iterator[Line]:
    """Compare what the worker, the library and we ourselves take shared memory to be."""
    try:
        worker, library = worker_program(), shim_library()
        said = json.loads(command.run([str(worker), "--abi"], timeout=10).stdout)
    except GazelledError as error:
        yield problem("programs", error.message, "nothing can be started", error.hint or "install gazelled again")
        return
    other: dict[str, object] = {"worker": said["abi_version"], "library": _library_abi(library)}
    sizes = {"gz_worker_page": worker_page.SIZE, "gz_group_page": group_page.SIZE}
    if any(said["structs"][name]["size"] != size for name, size in sizes.items()):
        other["worker"] = "of another build"
    wrong = [f"{what} {number}" for what, number in other.items() if number != ABI_VERSION]
    if wrong:
        yield problem(
            "versions",
            f"ABI {ABI_VERSION} here, but {', '.join(wrong)}",
            "programs do not attach, or workers do not start",
            "install supervisor, worker and library of one version, then gazelled restart",
        )
    else:
        yield ok("versions", f"supervisor, worker and library have ABI {ABI_VERSION}")


_DRIVERS = {"af_xdp": "net_af_xdp", "af_packet": "net_af_packet", "memif": "net_memif", "pci": "bus_pci"}


def _drivers(machine: Machine) -> Iterator[Line]:
    """Look for what DPDK loads as a worker starts, which Debian has in packages that nothing is linked with."""
    there = {path.name.split(".")[0] for path in machine.host.root.glob("usr/lib/*/dpdk/pmds-*/librte_*.so.*")}
    there |= {path.name.split(".")[0] for path in machine.host.root.glob("usr/local/lib/*/dpdk/pmds-*/librte_*.so*")}
    wanted = {"mempool_ring": "librte-meta-mempool"}
    if machine.plan.device.driver in _DRIVERS:
        name = _DRIVERS[machine.plan.device.driver]
        wanted[name] = "librte-meta-bus" if name == "bus_pci" else "librte-meta-net"
    missing = {name: package for name, package in wanted.items() if f"librte_{name}" not in there}
    if missing:
        names, packages = ", ".join(missing), " ".join(sorted(set(missing.values())))
        yield problem("dpdk", f"DPDK has no {names} here", "workers do not start", f"apt install {packages}")
    else:
        yield ok("dpdk", "has what it loads")


def _room(machine: Machine) -> Iterator[Line]:
    plan = machine.plan
    need, free = run_dir_bytes(len(plan.workers), len(plan.groups)), machine.free_bytes(machine.run_root)
    path = machine.run_root
    if free < need:
        yield problem(
            f"room {path}",
            f"{iec(free)} free; this plan needs {iec(need)}",
            "`start` refuses",
            f"mount -o remount,size=... {path.parent}",
        )
    elif free < 2 * need:
        yield warning(
            f"room {path}",
            f"{iec(free)} free; this plan needs {iec(need)}, more as connections come",
            "connections beyond are not recorded",
            f"mount -o remount,size=... {path.parent}",
        )
    else:
        yield ok(f"room {path}", f"{iec(free)} free, {iec(need)} needed")


def _left_over(machine: Machine) -> Iterator[Line]:
    if not machine.run_root.is_dir():
        yield ok("left over", "nothing of an earlier run")
        return
    found = list(_remains(machine))
    yield from found or [ok("left over", "nothing of an earlier run")]


def _remains(machine: Machine) -> Iterator[Line]:
    known = set()
    for name in sorted(os.listdir(machine.run_root)):
        run_dir = RunDir(machine.run_root / name)
        if not run_dir.path.is_dir() or run_dir.path in (machine.run_root / "nics", machine.run_root / "host"):
            continue
        try:
            supervisor = live_supervisor(run_dir.read_state())
        except GazelledError:
            known.add(name)
            yield warning(f"instance {name}", "not to be seen by this user", "it was not looked at", "run it as root")
            continue
        known.add(name)
        serving = answering(run_dir)
        if supervisor is None and serving:
            yield warning(
                f"instance {name}",
                f"{len(serving)} workers serve, and no supervisor watches them",
                "a worker that dies stays dead",
                f"gazelled start -i {name}",
            )
        elif supervisor is None:
            yield problem(
                f"instance {name}",
                f"{run_dir.path} is what a crash left",
                "its devices and routes are still there",
                f"gazelled recover -i {name}",
            )
        else:
            yield from _running(run_dir)
    for device in machine.names("sys/class/net"):
        if device.startswith("gz-") and device.removeprefix("gz-") not in known:
            alias = machine.text(f"sys/class/net/{device}/ifalias")
            if alias.startswith("gazelled instance "):
                yield problem(
                    f"device {device}",
                    "of an instance that is gone",
                    "no instance of that name can start",
                    f"ip link delete {device}",
                )


def _running(run_dir: RunDir) -> Iterator[Line]:
    """Say whether a running instance is of the files that are installed now."""
    state = run_dir.read_state()
    old = []
    for worker in state.workers if state else ():
        try:
            program = os.readlink(f"/proc/{worker.process.pid}/exe") if worker.process else ""
        except OSError:
            continue  # it ended, or is another user's
        if program.endswith(" (deleted)"):
            old.append(worker.queue_id)
    subject, again = f"instance {run_dir.instance}", f"gazelled restart -i {run_dir.instance}"
    try:
        Plan.from_json(run_dir.plan.read_text())
    except (OSError, ValueError, KeyError, TypeError):
        yield problem(subject, "its plan is of another version", "commands cannot tell what it does", again)
        return
    if old:
        queues = ", ".join(map(str, old))
        yield warning(
            subject,
            f"workers of queues {queues} run a program that was replaced since",
            "what the new one mends is not mended in them",
            again,
        )
    else:
        yield ok(subject, "runs the programs that are installed")


def _library_abi(path: Path) -> int | None:
    mark = _LIBRARY_MARK.search(path.read_bytes())
    return int(mark[1]) if mark else None
