# SPDX-License-Identifier: MulanPSL-2.0
"""Users of a test's own: none of them is in any file of the machine, and none has a capability."""

from __future__ import annotations

import grp
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gazelled.instance.worker_control import message
from kit.instance import Instance

STRANGER, GUEST = 61001, 61002  # uids, and gids of the same number, that no package takes
HELLO = 1  # GZ_MESSAGE_HELLO


def own_gid() -> int:
    """Return the gid of the group gazelle."""
    return grp.getgrnam("gazelle").gr_gid


def as_user(uid: int, *command: str, groups: Sequence[int] = ()) -> list[str]:
    """Return the command line by which an ordinary user, in these groups as well, runs a command."""
    more = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", more, "--inh-caps=-all", "--bounding-set=-all", *command]


class Installed:
    """A copy of gazelled where everybody may read it: the checkout is root's alone on some machines."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.directory = Path(tempfile.mkdtemp(prefix=f"{instance.name}-"))
        instance.kit.later(lambda: shutil.rmtree(self.directory))
        source = Path(__file__).resolve().parents[2]
        shutil.copytree(source / "gazelled", self.directory / "gazelled")
        for name in ("lstack/lstack", "shim/liblstack.so"):
            (self.directory / "native" / name).parent.mkdir(parents=True)
            shutil.copy(source / "build" / name, self.directory / "native" / name)
        # What it needs of others: the interpreter is the system's, its packages are copied.
        for package in ("click", "psutil"):
            found = next(Path(path) / package for path in sys.path if (Path(path) / package).is_dir())
            shutil.copytree(found, self.directory / package)
        subprocess.run(["chmod", "-R", "a+rX", str(self.directory)], check=True)

    def argv(self, *command: str) -> list[str]:
        """Return the command line of a gazelled command for the instance, as whoever runs it."""
        place = [f"PYTHONPATH={self.directory}", f"GAZELLED_NATIVE={self.directory / 'native'}"]
        python = next(path for path in ("/usr/bin/python3", sys.executable) if Path(path).exists())
        return ["env", *place, python, "-P", "-m", "gazelled", command[0], "-i", self.instance.name, *command[1:]]


def refused_by_the_worker(instance: Instance, uid: int) -> str:
    """Say HELLO to the worker as a user; return what it answers."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            control.settimeout(5)
            control.connect(str(instance.run_dir / "worker.0.sock"))
            with suppress(BrokenPipeError):
                control.send(message(HELLO))
            with suppress(ConnectionResetError):
                said = control.recv(256, socket.MSG_PEEK)
            said = control.recv(256)
        except OSError as error:
            said = str(error).encode()
        finally:
            os.write(writer, said)
            os._exit(0)
    os.close(writer)
    answer = os.read(reader, 4096)
    os.close(reader)
    os.waitpid(child, 0)
    return answer.decode(errors="replace")
