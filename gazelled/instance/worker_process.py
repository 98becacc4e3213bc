# SPDX-License-Identifier: MulanPSL-2.0
"""One lstack process: made, or adopted from an earlier supervisor; watched by descriptors, ended by signals.

A worker outlives its supervisor on purpose: it has a session of its own, its output goes to a file, and nothing it
waits for comes from us.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gazelled.base.printable import printable
from gazelled.base.process_identity import PROC, ProcessIdentity
from gazelled.instance.worker_state import Look

_LOG_MAX = 1 << 20  # a log this long is put aside before the next start
_MESSAGE_MAX = 4096
_FILES_WANTED = 1 << 20  # a worker holds an eventfd per event queue of every application

# These would send a worker's files elsewhere, let it speak for us to systemd, or load our own shim into it.
_NOT_FOR_WORKERS = (
    "PYTHONPATH",
    "RUNTIME_DIRECTORY",
    "XDG_RUNTIME_DIR",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LD_PRELOAD",
)


def raise_limits() -> None:
    """Let this process and its children have many descriptors and locked memory, as far as we may."""
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    _raise_limit(resource.RLIMIT_NOFILE, min(_FILES_WANTED, most))
    _raise_limit(resource.RLIMIT_MEMLOCK, resource.RLIM_INFINITY)


def _raise_limit(which: int, wanted: int) -> None:
    _, hard = resource.getrlimit(which)
    if wanted != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard >= wanted):
        resource.setrlimit(which, (wanted, hard))
        return
    try:
        resource.setrlimit(which, (wanted, wanted))
    except (ValueError, PermissionError):  # not root: then up to the hard limit
        resource.setrlimit(which, (hard, hard))


class WorkerProcess:
    """A running worker. `pidfd` is readable when it has ended, `ready_fd` when it has spoken (it then becomes None)."""

    def __init__(self, identity: ProcessIdentity, pidfd: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self.pidfd = pidfd
        self.ready_fd: int | None = None
        self.said = ""
        self._child = child

    @classmethod
    def spawn(cls, program: Path, name: str, group_page: Path, queue_id: int, log: Path) -> Self:
        """Start a worker with `name` as its argv[0]; OSError if that is impossible."""
        if log.exists() and log.stat().st_size > _LOG_MAX:
            log.rename(log.with_suffix(".log.old"))
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            with log.open("a+b") as output:  # also to be read: a log that is full goes on with its end
                child = subprocess.Popen(
                    [name, "--group", str(group_page), "--queue", str(queue_id), "--ready-fd", str(writer)],
                    executable=program,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(writer,),
                    start_new_session=True,
                    cwd="/",
                    env={key: value for key, value in os.environ.items() if key not in _NOT_FOR_WORKERS},
                )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        # Not reaped yet, so even a child that is dead already has a pidfd; its start time is then of no use to anyone.
        identity = ProcessIdentity.of(child.pid) or ProcessIdentity(child.pid, 0)
        process = cls(identity, os.pidfd_open(child.pid), child)
        os.set_blocking(reader, False)
        process.ready_fd = reader
        return process

    @classmethod
    def adopt(cls, identity: ProcessIdentity) -> Self | None:
        """Take over a worker that another supervisor has made; None if it is gone."""
        pidfd = identity.open()
        return None if pidfd is None else cls(identity, pidfd)

    def read_message(self) -> None:
        """Read into `said` what the worker says of its start, when `ready_fd` is readable. Closes `ready_fd`."""
        if self.ready_fd is None:
            return
        with suppress(BlockingIOError):  # it exits without a word, and its pipe is not closed yet
            self.said = printable(os.read(self.ready_fd, _MESSAGE_MAX).decode(errors="replace").strip())
        os.close(self.ready_fd)
        self.ready_fd = None

    def look(self) -> Look | None:
        """Ask the kernel what it is doing; None if it is gone."""
        try:
            stat = (PROC / str(self.identity.pid) / "stat").read_bytes()
            scheduled = (PROC / str(self.identity.pid) / "schedstat").read_bytes().split()
        except OSError:
            return None
        fields = stat[stat.rindex(b")") + 2 :].split()
        ran, waited = int(scheduled[0]) / 1e9, int(scheduled[1]) / 1e9
        return Look(fields[0].decode(), ran, waited)

    def terminate(self) -> None:
        """Ask it to drain and leave."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended meanwhile; its pidfd says so
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> str:
        """Say how it ended, after `pidfd` was readable, and let go of all descriptors."""
        status = self._child.wait() if self._child is not None else None
        self.close()
        if status is None:
            return "ended (its status went to the supervisor that made it)"
        if status >= 0:
            return f"exited with status {status}"
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"

    def close(self) -> None:
        """Let go of the descriptors; the worker runs on."""
        os.close(self.pidfd)
        if self.ready_fd is not None:
            os.close(self.ready_fd)
            self.ready_fd = None
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # we leave it running on purpose: Popen is not to warn of that


def verify(pid: int, name: str, comm: str, cpu: int | None) -> list[str]:
    """Compare a running worker with the plan: both its names, and the CPU it is bound to. Returns the differences."""
    import psutil  # late: slow to load, and no command waits for this check

    try:
        process = psutil.Process(pid)
        argv = process.cmdline()
        affinity = process.cpu_affinity() or []
        found_comm = Path(f"/proc/{pid}/comm").read_text().rstrip("\n")  # psutil completes it from argv[0]
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return ["it is gone"]
    problems = []
    if argv[:1] != [name]:
        problems.append(f"argv[0]: expected {name}, found {argv[0] if argv else 'nothing'}")
    if found_comm != comm:
        problems.append(f"comm: expected {comm}, found {found_comm}")
    if cpu is not None and affinity != [cpu]:
        problems.append(f"CPU affinity: expected {cpu}, found {','.join(map(str, affinity))}")
    return problems


@dataclass(frozen=True)
class RunningWorker:
    """A worker's process and the queue it was made for."""

    queue_id: int
    process: ProcessIdentity


def find_workers(run_dir: Path) -> list[RunningWorker]:
    """Find the workers of an instance by their command line, also those that no record names."""
    prefix = os.fsencode(run_dir) + b"/group."
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(argv) > 4 and argv[1::2][:2] == [b"--group", b"--queue"] and argv[2].startswith(prefix):
            identity = ProcessIdentity.of(int(entry.name))
            if identity is not None and argv[4].isdigit():
                found.append(RunningWorker(int(argv[4]), identity))
    return found
