# SPDX-License-Identifier: MulanPSL-2.0
"""Whose a port is: nobody takes what another user's program serves, and nobody appears as who he is not.

client (kernel of the same namespace)  ---- tap ----  stack (2 workers)  ----  victim, root's
                                                        |      |       ----  intruder, nobody's
                                                        |   programs of this host
                                                        |
a namespace of nobody's own: intruders there, whose kernel says that every port is free
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from kit.instance import EVERYBODY, Instance, on_nothing, on_tap, wait_running
from kit.lab import Kit, Process, compiled
from kit.waiting import until

NOBODY = "65534"
PORT = "8080"
WORKERS = 2
TIMES = "1000"
FEW = "100"
SOURCE = "5353"
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
ABROAD = ("unshare", "--user", "--map-root-user", "--net")
HERE = Path(__file__).parent

# Closes a port and takes it again, at once.
AGAIN = """
import socket, sys
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for _ in range(200):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind((sys.argv[1], 99))
            if kind == socket.SOCK_STREAM:
                taken.listen()
"""


class Scene:
    """An instance, and the means to run programs on it as a user who may not read the checkout."""

    def __init__(self, kit: Kit, instance: Instance) -> None:
        self.kit = kit
        self.instance = instance
        directory = Path(tempfile.mkdtemp())
        kit.later(lambda: shutil.rmtree(directory))
        directory.chmod(0o755)
        self.intruder = str(compiled(HERE / "intruder.c", directory))
        self.server, self.asker = (
            str(shutil.copy(HERE / name, directory)) for name in ("named_server.py", "who_answers.py")
        )
        environment = instance.attach_environment()
        library = shutil.copy(environment["LD_PRELOAD"], directory)
        self.attached = ("env", *(f"{key}={value}" for key, value in {**environment, "LD_PRELOAD": library}.items()))

    def serve(self, name: str, address: str, *user: str, port: str = PORT, attached: bool = True) -> Process:
        """Start a named server and wait until it has what it can get."""
        how = self.attached if attached else ()
        server = self.kit.spawn(self.instance.home, *user, *how, "python3", self.server, name, address, port)
        server.said(f"{name} ready")
        return server

    def intrude(self, *user: str, kind: str, address: str, peer: tuple[str, ...] = ()) -> str:
        """Let the intruder ask for a port by raw requests; return what it says. It stays."""
        run_dir = str(self.instance.run_dir)
        intruder = self.kit.spawn(
            self.instance.home, *user, self.intruder, run_dir, str(WORKERS), kind, address, PORT, *peer
        )
        intruder.said("granted", 30)
        return intruder.output()

    def answers(
        self, kind: str, address: str, times: str, *, attached: bool, source: tuple[str, ...] = ()
    ) -> dict[str, int]:
        """Return who answered how often."""
        how = self.attached if attached else ()
        said = self.instance.home.run(*how, "python3", self.asker, kind, address, PORT, times, *source, timeout=120)
        counts: dict[str, int] = json.loads(said)
        return counts

    def only_the_victim_answers(self) -> None:
        """Ask from the wire and from this host, by TCP and UDP."""
        address = self.instance.address
        everything = {"victim": int(TIMES)}
        assert self.answers("tcp", address, TIMES, attached=False) == everything
        assert self.answers("tcp", address, TIMES, attached=True) == everything
        assert self.answers("udp", address, TIMES, attached=False) == everything
        # From one port, of whose datagrams the intruder has said that they are all his.
        assert self.answers("udp", address, FEW, attached=False, source=(SOURCE,)) == {"victim": int(FEW)}

    def restart_workers(self) -> None:
        """End all workers by SIGKILL and wait for the next ones, and for the victim's listeners there."""
        for queue in range(WORKERS):
            pid = self.instance.worker(queue)["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_running(self.instance, queue, not_pid=pid)


@pytest.fixture
def scene(kit: Kit) -> Scene:
    instance = on_tap(kit, WORKERS)
    instance.start()
    return Scene(kit, instance)


@pytest.mark.parametrize("where", [(), ABROAD], ids=["here", "abroad"])
@pytest.mark.parametrize("bound", ["10.91.0.2", "0.0.0.0"])
def test_nobody_takes_what_another_user_serves(scene: Scene, where: tuple[str, ...], bound: str) -> None:
    address = scene.instance.address
    victim = scene.serve("victim", bound)
    intruder = (*AS_NOBODY, *where)

    def intrude() -> None:
        assert "granted 0 of" in scene.intrude(*intruder, kind="tcp", address=address)
        assert "granted 0 of" in scene.intrude(*intruder, kind="udp", address=address)
        peer = (scene.instance.peer, SOURCE)
        assert "granted 0 of" in scene.intrude(*intruder, kind="udp", address=address, peer=peer)
        scene.serve("thief", address, *intruder)
        scene.serve("thief", "0.0.0.0", *intruder)

    intrude()
    scene.only_the_victim_answers()
    scene.restart_workers()
    intrude()
    until(lambda: scene.answers("tcp", address, "1", attached=False) == {"victim": 1}, "the victim to listen again")
    scene.only_the_victim_answers()
    assert victim.alive
    scene.instance.stop()


def test_nobody_appears_as_who_he_is_not(scene: Scene) -> None:
    address = scene.instance.address
    victim = scene.serve("victim", "0.0.0.0")

    def forge(seen: str, peer: str, port: str, *user: str) -> str:
        run_dir = str(scene.instance.run_dir)
        return scene.instance.home.run(*user, scene.intruder, run_dir, "1", "pair", seen, PORT, peer, port)

    for to, peer, port in (
        (address, "10.1.2.3", "4444"),
        (address, scene.instance.peer, "4444"),
        (address, "127.0.0.1", "4444"),
        (address, address, "1023"),
        (address, address, "0"),
        ("127.0.0.1", "127.0.0.1", "1023"),
        ("127.0.0.1", address, "4444"),
        ("127.0.0.1", "0.0.0.0", "4444"),
    ):
        assert "refused" in forge(to, peer, port, *AS_NOBODY), (to, peer, port)
    assert "peer" not in victim.output(), victim.output()
    # What it could have been it may say; root could have any port.
    assert "answered victim" in forge(address, address, "4444", *AS_NOBODY)
    assert "answered victim" in forge("127.0.0.1", "127.0.0.1", "1023")
    # Loopback is another one elsewhere, also for who was introduced by the stack's address.
    assert "not introduced" in forge("127.0.0.1", "127.0.0.1", "4444", *AS_NOBODY, *ABROAD)
    assert "answered victim" in forge(address, address, "4445", *AS_NOBODY, *ABROAD)
    refused = sum(scene.instance.page(queue).counters()["pairs_refused"] for queue in range(WORKERS))
    until(
        lambda: sum(scene.instance.page(q).counters()["pairs_refused"] for q in range(WORKERS)) >= 8, f"{refused} of 8"
    )
    assert victim.alive
    scene.instance.stop()


def test_loopback_is_the_kernels_whose_it_is_there(scene: Scene) -> None:
    """A listener on loopback that is given up in the kernel is not kept on the stack, whoever comes after it."""
    first = scene.serve("first", "127.0.0.1", *AS_NOBODY)
    assert scene.answers("tcp", "127.0.0.1", FEW, attached=True) == {"first": int(FEW)}
    first.kill()
    real = scene.serve("real", "127.0.0.1", attached=False)
    assert "serves tcp" in real.output()
    assert scene.answers("tcp", "127.0.0.1", FEW, attached=True) == {"real": int(FEW)}
    assert "granted 0 of" in scene.intrude(*AS_NOBODY, kind="tcp", address="127.0.0.1")
    assert scene.answers("tcp", "127.0.0.1", FEW, attached=True) == {"real": int(FEW)}
    scene.instance.stop()


def test_each_namespace_has_a_loopback_of_its_own(kit: Kit) -> None:
    instance = on_tap(kit, 1, security=f'{EVERYBODY}\nforeign_namespaces = "listen"')
    instance.start()
    scene = Scene(kit, instance)
    places = {role: kit.namespace(role) for role in ("a", "b")}
    for role, place in places.items():
        server = kit.spawn(place, *scene.attached, "python3", scene.server, role, "127.0.0.1", PORT)
        server.said(f"{role} serves tcp")
    for role, place in places.items():
        said = place.run(*scene.attached, "python3", scene.asker, "tcp", "127.0.0.1", PORT, FEW)
        assert json.loads(said) == {role: int(FEW)}
    # Nobody serves it here; and the wire's ports are first those of the instance's own kernel.
    assert scene.answers("tcp", "127.0.0.1", "1", attached=True) == {"ConnectionRefusedError": 1}
    other = kit.spawn(places["a"], *scene.attached, "python3", scene.server, "foreign", instance.address, PORT)
    other.said("foreign serves udp")
    assert scene.answers("tcp", instance.address, FEW, attached=False) == {"foreign": int(FEW)}
    assert scene.answers("udp", instance.address, FEW, attached=False) == {"foreign": int(FEW)}
    scene.serve("home", instance.address)
    for kind in ("tcp", "udp"):  # and whoever has no port may still connect
        said = places["b"].run(*scene.attached, "python3", scene.asker, kind, instance.address, PORT, FEW)
        assert json.loads(said) == {"home": int(FEW)}
    assert scene.answers("tcp", instance.address, FEW, attached=False) == {"home": int(FEW)}
    assert scene.answers("udp", instance.address, FEW, attached=False) == {"home": int(FEW)}
    instance.stop()


def test_a_port_is_free_when_its_owner_is_gone(kit: Kit) -> None:
    """Killed and started again at once, many times: the port is there for the next one, as with the kernel alone."""
    instance = on_nothing(kit, WORKERS)
    instance.start()
    scene = Scene(kit, instance)
    for number in range(20):
        server = scene.serve(f"server{number}", instance.address)
        assert f"server{number} serves tcp" in server.output(), server.output()
        assert f"server{number} serves udp" in server.output(), server.output()
        assert scene.answers("tcp", instance.address, "1", attached=True) == {f"server{number}": 1}
        server.kill()
    instance.home.run(*scene.attached, sys.executable, "-c", AGAIN, instance.address)
    instance.stop()
