# SPDX-License-Identifier: MulanPSL-2.0
"""One ordinary user takes what he can get of a worker; root and a second user come all the same and are served.

       namespace S
greedy (user 65534)   the others' servers    their clients
     | control.h           | liblstack            |
     +---------- stack 10.91.0.2, 1 worker     kernel 10.91.0.1
                           +-------- tap ---------+
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from kit.instance import Instance, started
from kit.lab import Kit, Process, compiled, full
from kit.waiting import until

GREEDY, OTHER = 65534, 65533
ECHO_PORT = 7000
BACK_S = 10  # how soon after his end all is back
ORPHANS = 5_000 if full() else 2_000
SOCKETS, SOCKET_PROCESSES = 70_000, 4
PROGRAMS = 4_000

# Serves two connections: what comes goes back.
SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
"""


@dataclass(frozen=True)
class Place:
    """What users without rights can run, and how."""

    instance: Instance
    greedy: Path
    variables: list[str]

    def as_user(self, uid: int, *command: str) -> Process:
        """Start a program of a user on the stack."""
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        return self.instance.kit.spawn(self.instance.home, *user, "env", *self.variables, *command)

    def greed(self, mode: str, *words: str) -> Process:
        """Start one program of the greedy user; it uses no library."""
        user = ["setpriv", f"--reuid={GREEDY}", f"--regid={GREEDY}", "--clear-groups"]
        path = {"WORKER": str(self.instance.run_dir / "worker.0.sock")}
        return self.instance.kit.spawn(self.instance.home, *user, str(self.greedy), mode, *words, env=path)


@contextmanager
def place(kit: Kit) -> Iterator[Place]:
    """Start an instance and lay out what the users need, where they may read it."""
    with tempfile.TemporaryDirectory() as directory:  # the checkout may not be theirs to read
        home = Path(directory)
        home.chmod(0o755)
        greedy = compiled(Path(__file__).with_name("greedy.c"), home)
        instance = started(kit, "tap", 1)
        echo = kit.spawn(
            instance.client,
            sys.executable,
            str(Path(__file__).with_name("echo_server.py")),
            instance.peer,
            str(ECHO_PORT),
        )
        echo.said("serving")
        environment = instance.attach_environment()
        environment["LD_PRELOAD"] = shutil.copy(environment["LD_PRELOAD"], directory)
        for path in home.iterdir():
            path.chmod(0o755)
        environment["GAZELLED_FALLBACK"] = "fail"
        yield Place(instance, greedy, [f"{key}={value}" for key, value in environment.items()])
        instance.stop()


def others_are_served(where: Place, port: int) -> None:
    """Assert that root and another user attach now, listen on the stack, and answer."""
    for number, uid in enumerate((0, OTHER)):
        server = where.as_user(uid, "/usr/bin/python3", "-c", SERVER, where.instance.address, str(port + number))
        server.said("ready")
        assert "gazelled" not in server.output(), server.output()
        ask = f"import socket; c = socket.create_connection(('{where.instance.address}', {port + number}), 5)\n"
        ask += "c.sendall(b'x' * 100000); got = 0\nwhile got < 100000: got += len(c.recv(65536))\nprint(got)"
        assert where.instance.client.run(sys.executable, "-c", ask).strip() == "100000"
        server.kill()


def kept(instance: Instance) -> tuple[int, int, int, int]:
    """Return what the worker holds of programs: arenas, MiB in them, sockets, processes."""
    page = instance.page(0)
    arenas, blocks = 0, 0
    for entry in Path(f"/proc/{page.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if "gazelle-arena" in os.readlink(entry):
                arenas, blocks = arenas + 1, blocks + entry.stat().st_blocks
    counters = page.counters()
    return arenas, blocks // 2048, counters["sockets"], counters["attachments"]


def all_is_back(instance: Instance, worker: int) -> None:
    """Assert that the worker has forgotten everything soon, and is the same as before."""
    until(lambda: kept(instance) == (0, 0, 0, 0), "the worker to give back all", BACK_S)
    assert instance.worker(0)["pid"] == worker


def test_forged_orphans_end_with_their_program(kit: Kit) -> None:
    with place(kit) as where:
        instance, worker = where.instance, where.instance.worker(0)["pid"]
        greedy = where.greed("orphans", str(ORPHANS), instance.peer, str(ECHO_PORT))
        until(lambda: instance.page(0).counters()["attached_total"] > 100, "the orphans to come")
        others_are_served(where, 7100)
        greedy.said("greedy:", 240)
        assert int(greedy.output().split()[1]) == ORPHANS, greedy.output()
        all_is_back(instance, worker)


def test_a_user_who_attaches_all_he_can_leaves_room(kit: Kit) -> None:
    with place(kit) as where:
        instance, worker = where.instance, where.instance.worker(0)["pid"]
        greedy = where.greed("programs", str(PROGRAMS))
        greedy.said("greedy:", 60)
        _, count, reason = greedy.output().split(maxsplit=2)
        assert 1000 <= int(count) <= 2048, greedy.output()
        assert "as many processes here as one may have" in reason
        more = where.as_user(GREEDY, "/usr/bin/python3", "-c", "import socket; socket.socket()")
        assert more.wait(10) != 0
        assert "as many processes here as one may have" in more.output()
        others_are_served(where, 7100)
        greedy.kill()
        all_is_back(instance, worker)


def test_a_user_with_a_great_many_sockets_leaves_room(kit: Kit) -> None:
    with place(kit) as where:
        instance, worker = where.instance, where.instance.worker(0)["pid"]
        each = str(SOCKETS // SOCKET_PROCESSES)
        all_of_his = [where.greed("sockets", each, instance.peer, "1") for _ in range(SOCKET_PROCESSES)]
        for greedy in all_of_his:
            greedy.said("greedy:", 60)
            assert greedy.output().split()[1] == each
        others_are_served(where, 7100)
        for greedy in all_of_his:
            greedy.kill()
        all_is_back(instance, worker)


@pytest.mark.parametrize("count", [1, 4])
def test_memory_a_user_was_not_given_goes_with_him(kit: Kit, count: int) -> None:
    with place(kit) as where:
        instance, worker = where.instance, where.instance.worker(0)["pid"]
        all_of_his = [where.greed("memory") for _ in range(count)]
        for greedy in all_of_his:
            greedy.said("greedy:", 60)
        others_are_served(where, 7100)
        all_is_back(instance, worker)  # though they are still there
        assert instance.page(0).counters()["detached_hostile"] == count
