# SPDX-License-Identifier: MulanPSL-2.0
"""What a run makes on the host: namespaces, a veth pair, processes. All have names of their own; close() removes all.

namespace K (kernel)                                 namespace C (clients)
  127.0.0.1   10.93.0.2 ------ bk0 ====veth==== bk1 -- 10.93.0.1, .3

namespace S (stacks)
  instance t: 10.91.0.2  on a tap, its clients in S: 10.91.0.1, .3
  instance n: 10.94.0.2 uplink bn0 ====veth==== bn1 -- 10.94.0.1
     kernel:  10.94.0.4        bn0
  instance x: 10.92.0.2 af_xdp bx0 ====veth==== bx1 -- 10.92.0.1

The kernel's servers have a namespace of their own: they listen on 0.0.0.0, and the same port on a stack's address in
the same namespace would be taken, as it should.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from kit.lab import Process
from kit.namespaces import Namespace
from kit.waiting import until as wait_until

NATIVE_SOURCES = Path(__file__).resolve().parent / "native"
_LOOK_EVERY_S = 0.002
_CONGESTION = "reno"  # in every namespace there is; bbr, a default here and there, halves the kernel's own bulk


class BenchError(Exception):
    """Something could not be measured; the message is the reason the report gives."""


# Looks often, as what it waits for is measured; what does not come is a figure that is missing, not a fault of ours.
until = partial(wait_until, look_every=_LOOK_EVERY_S, error=BenchError)


def end_of_output(text: str, lines: int = 2) -> str:
    """Return the end of a program's output on one line, for a message."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(said[-lines:])[:300]


class Lab:
    """Owner of everything a run has made. One per run; a context manager."""

    def __init__(self, cpus: Sequence[int] | None = None) -> None:
        usable = sorted(os.sched_getaffinity(0)) if cpus is None else list(cpus)
        if len(usable) < 2:
            raise BenchError("needs two CPUs: one for the server, one for the client")
        self.server_cpu, self.client_cpu = usable[0], usable[1]
        self.worker_cpu = usable[2] if len(usable) > 2 else usable[0]
        self.prefix = f"gzb{os.getpid()}"
        self.directory = Path(tempfile.mkdtemp(prefix="gazelled-bench-"))
        self._undo = ExitStack()
        self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._count = 0
        self.home = self.kernel = self.client = ""

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything, in reverse; a second Ctrl-C does not get in between."""
        before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._undo.close()
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def later(self, undo: Callable[[], object]) -> None:
        """Have something undone by close()."""
        self._undo.callback(undo)

    def _build(self) -> None:
        self.home, self.kernel, self.client = (self._namespace(role) for role in "skc")
        self.veth(self.kernel, "bk0", "bk1", 1)
        self.address("bk0", "10.93.0.2/24", self.kernel)
        for each in ("10.93.0.1/24", "10.93.0.3/24"):
            self.address("bk1", each, self.client)

    def _namespace(self, role: str) -> str:
        name = self.prefix + role
        try:
            namespace = Namespace.make(name, f"net.ipv4.tcp_congestion_control={_CONGESTION}")
        except AssertionError as error:
            raise BenchError(end_of_output(str(error))) from None
        self.later(namespace.remove)
        return name

    def veth(self, home: str, home_end: str, client_end: str, queues: int) -> None:
        """Connect a namespace with the clients'; the pair goes with them."""
        try:
            Namespace(home).connect(home_end, Namespace(self.client), client_end, queues)
        except AssertionError as error:
            raise BenchError(end_of_output(str(error))) from None

    def address(self, device: str, address: str, namespace: str) -> None:
        """Give a device an address."""
        run("ip", "-n", namespace, "address", "add", address, "dev", device)

    @staticmethod
    def inside(namespace: str) -> tuple[str, ...]:
        """Return the words that run a command in a namespace; they replace themselves by it."""
        return ("nsenter", f"--net=/run/netns/{namespace}")

    def spawn(
        self,
        argv: Sequence[str],
        namespace: str,
        env: Mapping[str, str] | None = None,
        cpu: int | None = None,
        talk: bool = False,
    ) -> Process:
        """Start a program; its output goes to a file, or with `talk` through pipes. close() ends it if nobody has."""
        self._count += 1
        log = self.directory / f"{self._count}-{Path(argv[0]).name}.log"
        words = [*self.inside(namespace), *(("taskset", "-c", str(cpu)) if cpu is not None else ()), *argv]
        with log.open("w") as output:
            popen = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk else output,
                stderr=output if talk else subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                text=True,
                process_group=0,  # Ctrl-C on the terminal is ours to handle
            )
        process = Process(popen, log)
        self.later(process.stop)
        return process

    def call(
        self,
        argv: Sequence[str],
        namespace: str,
        env: Mapping[str, str] | None = None,
        cpu: int | None = None,
        seconds: float = 30.0,
        text: str | None = None,
    ) -> str:
        """Run a program to its end and return what it printed; BenchError if it failed or took too long."""
        words = [*self.inside(namespace), *(("taskset", "-c", str(cpu)) if cpu is not None else ()), *argv]
        name = Path(argv[0]).name
        try:
            done = subprocess.run(
                words,
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                cwd=self.directory,
                env={**os.environ, **(env or {})},
                process_group=0,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{name}: not done after {seconds:g} s") from None
        if done.returncode != 0:
            said = end_of_output(done.stdout + done.stderr)
            raise BenchError(f"{name}: status {done.returncode}: {said}")
        return done.stdout

    def compiled(self, name: str) -> str:
        """Compile one of the bench's own small programs, once per run; return its path."""
        program = self.directory / name
        if not program.exists():
            flags = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
            run("cc", *flags, "-o", str(program), str(NATIVE_SOURCES / f"{name}.c"))
        return str(program)


def run(*argv: str) -> str:
    """Run a short command of the run's own; BenchError with what it said if it failed."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise BenchError(f"{argv[0]}: not installed") from None
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)}: {end_of_output(done.stdout + done.stderr)}")
    return done.stdout


def pin(pid: int, cpu: int) -> None:
    """Put a process that already runs, with all its threads, on one CPU."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), {cpu})
        except ProcessLookupError:
            continue
