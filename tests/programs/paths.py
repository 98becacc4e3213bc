# SPDX-License-Identifier: MulanPSL-2.0
"""What the tests of programs share: waiting for a server, and which path the sockets of a program took."""

from __future__ import annotations

from kit.instance import Instance
from kit.lab import Process
from kit.namespaces import Namespace
from kit.waiting import until

LOOPBACK = "127.0.0.1"


def asker(instance: Instance, address: str, attached: bool = False) -> Namespace:
    """Return where a client of a server at this address runs: with an uplink a plain one is on another machine."""
    return instance.home if attached or address == LOOPBACK else instance.client


def listens(instance: Instance, server: Process, address: str, port: int, seconds: float = 15) -> None:
    """Wait until a plain client's connection to a server is accepted."""
    script = f"</dev/tcp/{address}/{port}"

    def accepted() -> bool:
        assert server.alive, f"ended with {server.popen.returncode}:\n{server.output()}"
        return asker(instance, address).try_run("timeout", "2", "bash", "-c", script).returncode == 0

    until(accepted, f"{server.log.name} to accept on {address}:{port}; it said:\n{server.output()}", seconds)


def family(pid: int) -> set[int]:
    """Return the pids of a process and of all its descendants."""
    found = {pid}
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return found
    return found.union(*(family(child) for child in children))


def kernel_paths(instance: Instance, *programs: Process) -> dict[str, int]:
    """Return the sockets on the kernel path of some programs and their children, by reason."""
    pids = {pid for program in programs for pid in family(program.pid)}
    counts: dict[str, int] = {}
    for application in instance.status()["applications"]:
        if application["pid"] in pids:
            for reason, count in application["kernel"].items():
                counts[reason] = counts.get(reason, 0) + count
    return {reason: count for reason, count in counts.items() if count}


def on_the_stack(instance: Instance, *programs: Process) -> None:
    """Assert that each of these programs holds accelerated sockets, and none on the kernel path.

    What plain clients opened on loopback may still be closing, so this is waited for.
    """
    try:
        until(lambda: not kernel_paths(instance, *programs), "sockets on the kernel path to go", 5)
    except AssertionError:
        raise AssertionError(f"sockets on the kernel path: {kernel_paths(instance, *programs)}") from None
    for program in programs:
        pids = family(program.pid)
        held = sum(row["sockets"] for row in instance.status()["applications"] if row["pid"] in pids)
        assert held > 0, f"{program.log.name}: no accelerated socket\n{instance.status()['applications']}"


def counted(instance: Instance) -> dict[str, int]:
    """Return the counters of all workers, summed."""
    pages = [instance.page(row["queue_id"]).counters() for row in instance.status()["workers"]]
    return {name: sum(page[name] for page in pages) for name in pages[0]}


def accepted_by_workers(instance: Instance) -> int:
    """Return how many connections the workers have accepted so far."""
    return counted(instance)["accepted"]


def kernel_counted(instance: Instance, protocol: str, counter: str) -> int:
    """Return a counter of the kernels of the instance's and the clients' namespaces, as /proc/net/snmp has it."""
    total = 0
    for namespace in {instance.home.name: instance.home, instance.client.name: instance.client}.values():
        lines = namespace.run("cat", "/proc/net/snmp").splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith(f"{protocol}:"))
        total += int(values[names.index(counter)])
    return total
