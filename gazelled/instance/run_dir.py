# SPDX-License-Identifier: MulanPSL-2.0
"""The run directory of an instance, /run/gazelled/<instance>: what is where, and whose it is.

group.<p>                        group page of process p; the supervisor writes it once
worker.<q>.page .sock .wake      made by the worker of queue q
worker.<q>.flows                 its open connections, for its successor
worker.<q>.lock                  held by the worker of queue q as long as it lives: there is never a second one
worker.<q>.log                   what it says
rings                            packet rings between workers
plan.json, journal               what runs, and what was changed on the host for it
state.json                       the supervisor and its workers, rewritten with every change
restart                          there while `restart` is between its stop and its start: what is to outlive it, stays
lock                             held (flock) by the supervisor, or by the command that cleans up after a dead one
supervisor.log                   its decisions, when it runs in the background
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.base.printable import printable
from gazelled.base.process_identity import ProcessIdentity
from gazelled.base.run_root import run_root
from gazelled.base.typed import check_types

# The longest name in it that is the path of a UNIX socket must fit sun_path, and the directory itself the group page.
_PATH_MAX = 107 - len("/worker.127.sock")
_LOG_MAX = 1 << 20  # as LOG_MAX_BYTES of lstack
_LOG_KEPT = 64 << 10
UPLINK_FILE = "uplink.json"  # what the programs of an uplink have counted, as last seen
_RESERVED = ("nics", "host")  # the NIC commands, and `check --fix`, keep journals of their own beside the instances


@dataclass(frozen=True)
class WorkerRecord:
    """What commands and the next supervisor know of one worker."""

    queue_id: int
    state: str
    process: ProcessIdentity | None
    restarts: int
    reason: str  # of the last death


@dataclass(frozen=True)
class StateRecord:
    """state.json."""

    supervisor: ProcessIdentity
    workers: tuple[WorkerRecord, ...]

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(
            {
                "supervisor": _identity_to_json(self.supervisor),
                "workers": [{**vars(worker), "process": _identity_to_json(worker.process)} for worker in self.workers],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what `to_json` wrote."""
        data: dict[str, Any] = json.loads(text)
        supervisor = _identity_from_json(data["supervisor"])
        if supervisor is None:
            raise ValueError("state.json names no supervisor")
        workers = (
            WorkerRecord(**{**worker, "process": _identity_from_json(worker["process"])}) for worker in data["workers"]
        )
        state = cls(supervisor, tuple(workers))
        check_types(state)
        return state


def live_supervisor(state: StateRecord | None) -> ProcessIdentity | None:
    """Return the supervisor if it runs."""
    return state.supervisor if state is not None and state.supervisor.alive else None


def _identity_to_json(process: ProcessIdentity | None) -> dict[str, int] | None:
    return None if process is None else vars(process)


def _identity_from_json(data: dict[str, int] | None) -> ProcessIdentity | None:
    return None if data is None else ProcessIdentity(**data)


@dataclass(frozen=True)
class RunDir:
    """Paths and small files of one instance; making an object touches nothing."""

    path: Path

    @classmethod
    def of(cls, instance: str) -> Self:
        """Return the run directory of an instance; GazelledError if the name cannot have one."""
        path = run_root().absolute() / instance
        if instance in _RESERVED:
            raise GazelledError(
                f'instance "{instance}": reserved name', hint="choose another", exit_code=ExitCode.CONFIG
            )
        if len(os.fsencode(path)) > _PATH_MAX:
            raise GazelledError(
                f"{path}: too long for the sockets in it (at most {_PATH_MAX} bytes)",
                hint="choose a shorter instance name or $GAZELLED_RUN_ROOT",
                exit_code=ExitCode.CONFIG,
            )
        return cls(path)

    @classmethod
    def all(cls) -> list[Self]:
        """Return the run directories there are, of every instance."""
        root = run_root().absolute()
        if not root.is_dir():
            return []
        return [cls(path) for path in sorted(root.iterdir()) if path.is_dir() and path.name not in _RESERVED]

    @property
    def instance(self) -> str:
        """Return the name of the instance."""
        return self.path.name

    @property
    def journal(self) -> Path:
        """Return the path of the journal of host changes."""
        return self.path / "journal"

    @property
    def plan(self) -> Path:
        """Return the path of the plan that runs."""
        return self.path / "plan.json"

    @property
    def supervisor_log(self) -> Path:
        """Return the path of a background supervisor's log."""
        return self.path / "supervisor.log"

    def group_page(self, process_index: int) -> Path:
        """Return the path of a group page."""
        return self.path / f"group.{process_index}"

    def worker_page(self, queue_id: int) -> Path:
        """Return the path of a worker page."""
        return self.path / f"worker.{queue_id}.page"

    def worker_log(self, queue_id: int) -> Path:
        """Return the path of what a worker says."""
        return self.path / f"worker.{queue_id}.log"

    def queue_held(self, queue_id: int) -> bool:
        """Tell whether a worker serves a queue, in whatever PID namespace, of whatever supervisor. For root only.

        It asks for the lock without taking it, even for a moment: a worker that starts just now must not fail for it.
        """
        try:
            fd = os.open(self.path / f"worker.{queue_id}.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted)
        finally:
            os.close(fd)
        return bool(struct.unpack_from("h", found)[0] != fcntl.F_UNLCK)

    def held_queues(self) -> list[int]:
        """Return the queues that are served."""
        locks = [path.name.split(".")[1] for path in self.path.glob("worker.*.lock")]
        return [queue_id for queue_id in sorted(map(int, locks)) if self.queue_held(queue_id)]

    def lock(self) -> int | None:
        """Make the directory if need be and take its lock; None if another holds it.

        The lock lives as long as the descriptor and its copies in other processes. The caller closes it.
        """
        while True:
            fd = self._open_lock()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last holder may just have removed the directory: then this locks nothing.
                if os.path.samestat(os.fstat(fd), os.stat(self.path / "lock")):
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            except FileNotFoundError:
                pass
            os.close(fd)

    def _open_lock(self) -> int:
        while True:
            try:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # opened to whom the plan says
                return os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # removed between the two calls by a stop that just ended
            except PermissionError as error:
                raise GazelledError(
                    f"{error.filename}: permission denied", hint="run it as root", exit_code=ExitCode.PERMISSION
                ) from error

    def read_state(self) -> StateRecord | None:
        """Return what the last supervisor wrote, None if there is nothing of it; GazelledError if we may not see it."""
        try:
            return StateRecord.from_json((self.path / "state.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            from gazelled.instance.access import refusal, shut_out_groups

            raise refusal(self.instance, shut_out_groups(self.path)) from None
        except (ValueError, KeyError, TypeError):
            return None  # of another version; the journal and the processes themselves say the rest

    def write_state(self, state: StateRecord) -> None:
        """Replace state.json, whole or not at all."""
        self.write("state.json", state.to_json())

    def write(self, name: str, text: str) -> None:
        """Replace a small file, whole or not at all; each user who may enter the directory may read it."""
        draft = self.path / f"{name}.new"
        draft.write_text(text)
        draft.chmod(0o644)
        draft.rename(self.path / name)

    @property
    def between(self) -> Path:
        """Return the path of what says that a start follows a stop at once."""
        return self.path / "restart"

    def empty(self) -> None:
        """Remove all that a restart makes anew. The directory stays the same one: containers have it mounted."""
        for path in self.path.iterdir():
            if path not in (self.path / "lock", self.journal, self.between):
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory and all in it, and the root if that was the last."""
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self.path.parent.rmdir()
        except OSError:
            return  # other instances live there


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log, none if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
            return [printable(line) for line in file.read().decode(errors="replace").splitlines()[-lines:]]
    except OSError:
        return []


def bound_log(fd: int) -> None:
    """Have a log that is full go on with its end; `fd` is open to read and to append. Nothing if it is no file."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size < _LOG_MAX:
        return
    kept = os.pread(fd, _LOG_KEPT, info.st_size - _LOG_KEPT)
    os.ftruncate(fd, 0)
    os.write(fd, kept.partition(b"\n")[2])
