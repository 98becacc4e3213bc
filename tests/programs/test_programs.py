# SPDX-License-Identifier: MulanPSL-2.0
"""Each program of the table does its work on the stack, served there and asking there.

                   namespace S
plain client     server <------ client     wire: a plain client comes over the tap; host: an attached one of the same
    |              | liblstack |           host, the two programs share memory; peer: the server is a plain program and
kernel -- tap -- stack --------+           the client attached, it goes out over the tap; loopback and loopback-host: as
                                           wire and host, the server on 127.0.0.1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kit.instance import Instance
from kit.lab import Kit
from kit.waiting import until

from programs.conftest import LAYOUTS, laid_out
from programs.paths import LOOPBACK, asker, counted, kernel_counted, listens, on_the_stack
from programs.table import PROGRAMS, Files, Program, make_files


@dataclass
class Place:
    """An instance that all programs of this module share, and files; every test has a port of its own."""

    instance: Instance
    files: Files
    environment: dict[str, str]  # what `run` adds to a program's: clients go without it, servers are started by it
    port: int = 20000


@pytest.fixture(scope="module", params=LAYOUTS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory: Path = tmp_path_factory.mktemp("programs")
    kit = Kit(directory)
    try:
        with laid_out(kit, request.param) as instance:
            yield Place(instance, make_files(directory, instance.home.run), instance.attach_environment())
    finally:
        kit.close()


@dataclass(frozen=True)
class Way:
    """Where the server listens, and whether the two programs are on the stack."""

    server: str  # "stack", "peer" or "loopback": its address
    attached: bool  # the client


WAYS = {
    "wire": Way("stack", False),
    "host": Way("stack", True),
    "peer": Way("peer", True),
    "loopback": Way("loopback", False),
    "loopback-host": Way("loopback", True),
}


CASES = {  # UDP on loopback is the kernel's
    f"{program.name}-{name}": (program, way)
    for program in PROGRAMS
    for name, way in WAYS.items()
    if not (program.datagrams and way.server == "loopback")
}


@pytest.mark.parametrize(("program", "way"), CASES.values(), ids=CASES)
def test_program(place: Place, program: Program, way: Way) -> None:
    instance = place.instance
    place.port += 1
    port = str(place.port)
    address = {"stack": instance.address, "peer": instance.peer, "loopback": LOOPBACK}[way.server]
    others = attachments(instance)
    command = program.server(address, port, place.files)
    server = instance.kit.spawn(instance.client, *command) if way.server == "peer" else instance.spawn(*command)
    listens(instance, server, address, place.port)
    before = paths(instance)
    client = program.client(address, port, place.files)
    where = asker(instance, address, way.attached)
    said = where.try_run(*client, timeout=60, env=place.environment if way.attached else {})
    assert said.returncode == 0, f"{said.stdout}{said.stderr}\nserver: {server.output()}{instance.logs()}"
    program.proved(said.stdout + said.stderr, place.files)
    after = paths(instance)
    took = {path: after[path] - before[path] for path in after}
    over_the_wire = way.server != "loopback" and not (way.attached and way.server == "stack")
    # With an uplink, datagrams from the machine to its own address are its kernel's.
    datagrams = 0 if address == instance.address and where is not instance.client else program.datagrams
    # Two attached programs of one host share memory: neither the workers nor the kernel see their connections.
    expected = {
        "accepted": program.connections if over_the_wire and way.server == "stack" else 0,
        "connected": program.connections if over_the_wire and way.server == "peer" else 0,
        "kernel": 0 if way.attached else program.connections,
        "datagrams_out" if way.server == "peer" else "datagrams_in": datagrams,
    }
    for path, count in expected.items():
        assert took[path] >= count if count else not took[path], (path, took, expected)
    if way.server != "peer":
        on_the_stack(instance, server)
    assert server.alive, server.output()
    server.stop()
    until(lambda: attachments(instance) <= others, f"attachments to go: {attachments(instance) - others}")


def attachments(instance: Instance) -> set[int]:
    """Return the pids of all that is attached."""
    return {row["pid"] for row in instance.status()["applications"]}


def paths(instance: Instance) -> dict[str, int]:
    """Return how many connections took which path so far, and how many datagrams came to the stack."""
    return {**counted(instance), "kernel": kernel_counted(instance, "Tcp", "ActiveOpens")}
