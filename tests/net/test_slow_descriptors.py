# SPDX-License-Identifier: MulanPSL-2.0
"""A program passes the worker descriptors whose close() waits for as long as a file system likes. The worker serves on.

attacker (user GUEST) --- control socket --- worker --- program of another user
     | descriptors of a file of FUSE, and UNIX sockets full of them
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from kit import slow_file as slow_file_module
from kit.instance import EVERYBODY, Instance, on_tap
from kit.lab import Kit
from kit.strangers import GUEST, HELLO, refused_by_the_worker
from kit.waiting import until

from gazelled.instance.worker_control import message

PER_MESSAGE = 60
MESSAGES = 8


def slow_file(kit: Kit) -> tuple[subprocess.Popen[bytes], Path]:
    """Serve such a file, in the mount namespace of all; `ip netns exec` would make one of its own."""
    path = kit.directory / "slow"
    path.touch(mode=0o666)
    server = subprocess.Popen([sys.executable, str(slow_file_module.__file__), str(path)], stdout=subprocess.PIPE)

    def end() -> None:
        server.terminate()
        server.wait(timeout=10)
        assert server.stdout is not None
        server.stdout.close()

    kit.later(end)
    assert server.stdout is not None
    assert server.stdout.readline() == b"serving\n"
    return server, path


def control_socket(instance: Instance) -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.settimeout(10)
    control.connect(str(instance.run_dir / "worker.0.sock"))
    return control


def attack(instance: Instance, path: Path, nested: bool) -> int:
    """Pass descriptors of the slow file as user GUEST: in messages, or in the queue of a UNIX socket.

    Returns the pid of the attacker, who cannot end before the file's server does.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        return child
    try:
        files = [os.open(path, os.O_RDONLY) for _ in range(PER_MESSAGE)]
        os.setgroups([])
        os.setresgid(GUEST, GUEST, GUEST)
        os.setresuid(GUEST, GUEST, GUEST)
        for _ in range(MESSAGES):
            control = control_socket(instance)
            passed = files
            if nested:
                ours, full = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                for _ in range(3):
                    socket.send_fds(ours, [b"x"], files)
                passed = [full.fileno()]
            with suppress(BrokenPipeError):
                socket.send_fds(control, [message(HELLO)], passed)
            with suppress(OSError):
                control.recv(256)
        os.write(writer, b"x")
    except OSError:
        traceback.print_exc()
    os._exit(0)


def test_a_descriptor_that_cannot_be_closed_holds_up_only_its_user(kit: Kit) -> None:
    instance = on_tap(kit, 1, security=EVERYBODY)
    instance.start()
    server, path = slow_file(kit)
    pid = instance.status()["workers"][0]["pid"]

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    before = descriptors()
    attackers = [attack(instance, path, nested) for nested in (False, True)]
    assert descriptors() > before + 16  # they are not closed
    assert descriptors() < before + 16 + 2 * PER_MESSAGE + 3 * MESSAGES
    # Another user attaches, and is served; the same user is told why not.
    program = (
        "import socket; s = socket.create_server(('', 7100)); print(socket.create_connection(('10.91.0.2', 7100)))"
    )
    assert "10.91.0.2" in instance.home.run(*instance.argv("run"), "--", sys.executable, "-c", program)
    assert "its user passed descriptors that cannot be closed" in refused_by_the_worker(instance, GUEST)
    server.terminate()
    for attacker in attackers:
        os.waitpid(attacker, 0)
    until(lambda: descriptors() == before, "the worker to be rid of them")
    assert instance.worker(0)["restarts"] == 0
    assert instance.status()["workers"][0]["pid"] == pid
    instance.stop()
