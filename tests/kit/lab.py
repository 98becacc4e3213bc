# SPDX-License-Identifier: MulanPSL-2.0
"""What one test makes: namespaces and processes, all with names of their own, all removed in one place.

A test asks the `kit` fixture for what it needs; `Kit.close` undoes everything in reverse, whatever has happened.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.namespaces import Namespace
from kit.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
_numbers = itertools.count()


@dataclass(frozen=True)
class Process:
    """A program a test started; its output goes to a file."""

    popen: subprocess.Popen[Any]  # of bytes, or of text for programs that are talked to
    log: Path

    @property
    def pid(self) -> int:
        """Return the pid: the program's own, not a wrapper's."""
        return self.popen.pid

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self.popen.poll() is None

    def output(self) -> str:
        """Return all it has said so far."""
        return self.log.read_text(errors="replace")

    def said(self, text: str, seconds: float = 10.0) -> None:
        """Wait until it has said something; fail at once if it ends before."""

        def look() -> bool:
            if text in self.output():
                return True
            assert self.alive, f"ended with {self.popen.returncode} before it said {text!r}:\n{self.output()}"
            return False

        until(look, f"{self.log.name} to say {text!r}; it said:\n{self.output()}", seconds)

    def kill(self) -> None:
        """End it by SIGKILL and reap it."""
        if self.alive:
            self.popen.kill()
        self.popen.wait(timeout=10)

    def kill_group(self) -> None:
        """End it and the children it has left behind."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(timeout=10)

    def stop(self, seconds: float = 10.0) -> int:
        """End it by SIGTERM, after `seconds` by SIGKILL; return its status."""
        if self.alive:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait(timeout=10)

    def wait(self, seconds: float) -> int:
        """Wait for its own end and return its status."""
        try:
            return self.popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds:g} s; it said:\n{self.output()}") from None


class Kit:
    """What one test has made. Everything that is made is also removed, in reverse order, by close()."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.prefix = f"gz{os.getpid()}x{next(_numbers)}"
        self._undo = ExitStack()
        self._names = itertools.count()

    def close(self) -> None:
        """Remove everything; the one place where that happens."""
        self._undo.close()

    def later(self, undo: Callable[[], object]) -> None:
        """Have something undone by close()."""
        self._undo.callback(undo)

    def namespace(self, role: str) -> Namespace:
        """Make a namespace with its loopback up."""
        namespace = Namespace.make(f"{self.prefix}{role}")
        self.later(namespace.remove)
        return namespace

    def spawn(self, namespace: Namespace, *command: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a program; close() ends it if nobody has."""
        log = self.directory / f"{next(self._names)}-{Path(command[0]).name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                namespace.argv(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        process = Process(popen, log)
        self.later(process.kill_group)
        return process


def compiled(source: Path, directory: Path, *more: str) -> Path:
    """Compile a small C program of the tests."""
    compiler = shutil.which("cc")
    assert compiler is not None, "no C compiler"
    program = directory / source.stem
    include = REPOSITORY / "native" / "include"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{include}", *more]
    subprocess.run([compiler, *flags, "-o", str(program), str(source)], check=True, timeout=60)
    return program


def cpus(wanted: int) -> list[int]:
    """Return so many CPUs for workers."""
    usable = sorted(os.sched_getaffinity(0))
    assert len(usable) >= wanted, f"{wanted} workers need as many CPUs; this machine has {len(usable)}"
    return usable[:wanted]


def full() -> bool:
    """Tell whether the long forms of the tests are wanted: FULL=1."""
    return os.environ.get("FULL", "") not in ("", "0")
