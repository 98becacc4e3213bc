# SPDX-License-Identifier: MulanPSL-2.0
"""What a case has in its hands: the two ends, sockets between them, epoll sets, threads, children, signals, time."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from conformance import libc, names, ops
from conformance.ends import End, Here, Sock, There
from conformance.epoll import Epoll
from conformance.libc import Address, Errno, call
from conformance.registry import HOST6, STACK6, Mode
from conformance.trace import Trace

_STEADY_LOOKS = 4
_STEADY_EVERY_S = 0.003


class SetupError(Exception):
    """What a case needs before it begins could not be made."""


class Task:
    """A thread of a case; its lines enter the trace where it is joined."""

    def __init__(self, trace: Trace, function: Callable[[], Any]) -> None:
        self._trace, self._function = trace, function
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._trace.collect(self._lines)
        try:
            self._function()
        except Exception as error:
            self._lines.append(f"exception {error!r}")

    def blocked(self) -> None:
        """Wait until it sleeps in a call."""
        native = self._thread.native_id
        blocked(os.getpid(), native if native is not None else 0)

    def join(self, label: str = "thread") -> None:
        """Wait for its end."""
        self._thread.join(2 * ops.DEADLINE_S)
        if self._thread.is_alive():
            self._trace.add(f"{label}: does not end")
            raise SetupError(f"{label} does not end: {self._lines}")
        for line in self._lines:
            self._trace.add(f"{label}: {line}")


class Child:
    """A child process of a case; its lines enter the trace where it is joined."""

    def __init__(self, trace: Trace, pid: int, reads: int) -> None:
        self._trace, self.pid, self._reads = trace, pid, reads

    def join(self, label: str = "child") -> None:
        """Wait for its end."""
        raw = b""
        while select.select([self._reads], [], [], 2 * ops.DEADLINE_S)[0]:
            more = os.read(self._reads, 65536)
            raw += more
            if not more:
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
            self._trace.add(f"{label}: does not end")
        os.close(self._reads)
        _, status = os.waitpid(self.pid, 0)
        for line in json.loads(raw) if raw else []:
            self._trace.add(f"{label}: {line}")
        if status:
            self._trace.add(f"{label}: status {status}")


class Gate:
    """Something one process or thread opens and another waits for."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()

    def open(self) -> None:
        """Let one pass."""
        os.write(self._writes, b".")

    def wait(self) -> None:
        """Wait to pass."""
        if not select.select([self._reads], [], [], 2 * ops.DEADLINE_S)[0]:
            raise SetupError("a gate stays shut")
        os.read(self._reads, 1)

    def close(self) -> None:
        """Remove it."""
        os.close(self._reads)
        os.close(self._writes)


class T:
    """One run of one case."""

    def __init__(
        self, mode: Mode, trace: Trace, me: Here, peer: There, first_port: int, hold: Callable[[], None]
    ) -> None:
        self.mode, self.trace, self.me, self.peer, self.hold = mode, trace, me, peer, hold
        self.here, self.there, self.family = mode.here, mode.there, socket.AF_INET
        self._next_port, self._named = first_port, 0
        self._closers: list[Callable[[], object]] = []

    def over_ipv6(self) -> None:
        """Have both ends meet over IPv6; a socket is one of IPv6 if nothing else is said."""
        self.family = socket.AF_INET6
        if self.here.startswith("127."):
            self.here = self.there = "::1"
        else:
            self.here, self.there = STACK6, HOST6 if self.mode.wire else STACK6

    @property
    def any(self) -> str:
        """The unspecified address."""
        return "::" if self.family == socket.AF_INET6 else "0.0.0.0"

    # -- sockets
    def port(self) -> int:
        """Return a port nobody uses, named in the trace by its order."""
        self._next_port += 1
        self._named += 1
        self.trace.port(self._next_port, f"p{self._named}")
        return self._next_port

    def socket(
        self, label: str = "s", kind: int = socket.SOCK_STREAM, family: int | None = None, end: End | None = None
    ) -> Sock:
        """Make a socket at this end, or at the other."""
        value = (end or self.me).run("socket", family or self.family, kind, 0)
        if isinstance(value, Errno):
            raise SetupError(f"socket: {value}")
        return Sock(end or self.me, self.trace, value, label)

    def listener(
        self, backlog: int = 64, end: End | None = None, label: str = "l", host: str | None = None
    ) -> tuple[Sock, Address]:
        """Make a listener on a port of its own; return it and its address."""
        family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
        listener = self.socket(label, family=family, end=end)
        address = (host or (self.there if end is self.peer else self.here), self.port())
        listener.quietly("setsockopt", socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.quietly("bind", address)
        listener.quietly("listen", backlog)
        return listener, address

    def dial(self, address: Address, end: End | None = None, label: str = "p") -> Sock:
        """Connect from the other end, or from the one named."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        dialled = self.socket(label, family=family, end=end or self.peer)
        dialled.quietly("connect", address)
        return dialled

    def accepted(self, listener: Sock, label: str) -> Sock:
        """Accept without a word."""
        listener.quietly("wait", names.IN, names.IN)
        return listener.sock(listener.quietly("accept", -1)[0], label)

    def pair(self, label: str = "s", peer_label: str = "p", nonblock: bool = False) -> tuple[Sock, Sock]:
        """Return a connection: our end and the peer's. The mode says who connects."""
        server, client = (self.me, self.peer) if self.mode.serves else (self.peer, self.me)
        listener, address = self.listener(end=server)
        labels = (label, peer_label) if self.mode.serves else (peer_label, label)
        dialled = self.dial(address, client, labels[1])
        accepted = self.accepted(listener, labels[0])
        listener.quietly("close")
        ours, theirs = (accepted, dialled) if self.mode.serves else (dialled, accepted)
        if nonblock:
            ours.nonblock()
        return ours, theirs

    def udp(self, label: str = "u", end: End | None = None, host: str | None = None) -> tuple[Sock, Address]:
        """Return a bound datagram socket and its address."""
        host = host or (self.there if end is self.peer else self.here)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self.socket(label, socket.SOCK_DGRAM, family, end)
        address = (host, self.port())
        made.quietly("bind", address)
        return made, address

    # -- the trace
    def note(self, what: str, value: Any = "") -> None:
        """Add an observation of the case's own."""
        self.trace.add(f"{what}: {self.trace.value(value)}")

    def call(self, function: str, *args: Any) -> int | Errno:
        """Call libc and note what it returned."""
        value = call(function, *args)
        self.trace.add(f"{function}() = {self.trace.value(value)}")
        return value

    def timed(self, what: str, function: Callable[[], Any], at_least: float, at_most: float = 1.5) -> Any:
        """Run something and note whether it took the time it should: early, in time, late."""
        begin = time.monotonic()
        value = function()
        took = time.monotonic() - begin
        self.trace.add(f"{what}: {'early' if took < at_least - 0.002 else 'late' if took > at_most else 'in time'}")
        return value

    # -- readiness of several
    def epoll(self, label: str = "ep") -> Epoll:
        """Make an epoll set."""
        made = Epoll(self.trace, label)
        self.later(made.close)
        return made

    def poll(self, wanted: list[tuple[Sock | int, int]], milliseconds: int = 0) -> list[int]:
        """Poll several descriptors."""
        array = (libc.Pollfd * max(1, len(wanted)))()
        for slot, (what, events) in zip(array, wanted, strict=False):
            slot.fd, slot.events = what.fd if isinstance(what, Sock) else what, events
        done = call("poll", array, len(wanted), milliseconds)
        shown = [names.events(slot.revents & 0xFFFF) for slot in array[: len(wanted)]]
        self.trace.add(f"poll({len(wanted)}) = {done} {shown}")
        return [slot.revents & 0xFFFF for slot in array[: len(wanted)]]

    def select(self, reads: list[Sock], writes: list[Sock], excepts: list[Sock], seconds: float | None = 0) -> None:
        """Select; descriptors may be larger than FD_SETSIZE, as programs do that bring their own bitmaps."""
        every = [*reads, *writes, *excepts]
        highest = max((s.fd for s in every), default=-1) + 1
        import ctypes

        sets = []
        for group in (reads, writes, excepts):
            bits = (ctypes.c_ubyte * (max(1024, highest + 64) // 8 + 8))()
            for s in group:
                bits[s.fd // 8] |= 1 << s.fd % 8
            sets.append(bits)
        limit = None if seconds is None else (ctypes.c_long * 2)(int(seconds), int(seconds % 1 * 1e6))
        done = call("select", highest, *sets, limit)
        ready = [
            [s.label for s in group if bits[s.fd // 8] >> s.fd % 8 & 1]
            for group, bits in zip((reads, writes, excepts), sets, strict=True)
        ]
        self.trace.add(f"select() = {done} {ready if not isinstance(done, Errno) else ''}")

    # -- threads, children, signals
    def spawn(self, function: Callable[[], Any]) -> Task:
        """Start a thread."""
        return Task(self.trace, function)

    def gate(self) -> Gate:
        """Make a gate."""
        made = Gate()
        self.later(made.close)
        return made

    def fork(self, function: Callable[[], Any]) -> Child:
        """Fork; the child runs the function and ends."""
        reads, writes = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writes)
            return Child(self.trace, pid, reads)
        lines: list[str] = []
        self.trace.collect(lines)
        try:
            function()
        except BaseException:
            lines.append(f"exception {traceback.format_exc(limit=3)}")
        os.write(writes, json.dumps(lines).encode())
        os._exit(0)

    @contextmanager
    def signals(self, number: int, restart: bool = False) -> Iterator[list[int]]:
        """Handle a signal for a while; yields the list of those that came."""
        came: list[int] = []
        old = signal.signal(number, lambda got, _frame: came.append(got))
        signal.siginterrupt(number, not restart)
        try:
            yield came
        finally:
            signal.signal(number, old)

    def interrupt(self, number: int = signal.SIGUSR1) -> Task:
        """Send the main thread a signal once it sleeps in a call."""
        main = threading.get_native_id()
        ident = threading.get_ident()

        def send() -> None:
            blocked(os.getpid(), main)
            signal.pthread_kill(ident, number)

        return self.spawn(send)

    def later(self, undo: Callable[[], object]) -> None:
        """Have something undone when the case is over."""
        self._closers.append(undo)

    def pipe(self) -> tuple[int, int]:
        """Return a kernel pipe."""
        reads, writes = os.pipe()
        for fd in (reads, writes):
            self.later(partial(call, "close", fd))
        return reads, writes

    def close(self) -> None:
        """Forget all that was made."""
        for undo in reversed(self._closers):
            undo()
        self.me.close_all()
        self.peer.run("forget")


def blocked(pid: int, tid: int) -> None:
    """Wait until a thread sleeps and stays asleep; one that waits for Python's lock is woken every few milliseconds."""
    deadline = time.monotonic() + ops.DEADLINE_S
    last, same = "", 0
    while same < _STEADY_LOOKS:
        if time.monotonic() > deadline:
            raise SetupError("a call that should block does not")
        try:
            status = Path(f"/proc/{pid}/task/{tid}/status").read_text()
        except FileNotFoundError:
            raise SetupError("a call that should block has returned") from None
        now = "".join(line for line in status.splitlines() if line.startswith(("State:\tS", "voluntary")))
        same = same + 1 if now == last and "State" in now else 0
        last = now
        time.sleep(_STEADY_EVERY_S)


def raise_limits() -> None:
    """Allow as many descriptors as cases of many connections and of large numbers need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
