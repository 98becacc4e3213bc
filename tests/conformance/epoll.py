# SPDX-License-Identifier: MulanPSL-2.0
"""An epoll set of a case: libc's calls, every one of them in the trace."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from conformance import libc, names, ops
from conformance.libc import Errno, call

if TYPE_CHECKING:
    from conformance.ends import Sock
    from conformance.trace import Trace

ADD, DEL, MOD = 1, 2, 3


class Epoll:
    """One set. What is in it goes by its label; `fd` makes it a thing to watch itself."""

    def __init__(self, trace: Trace, label: str) -> None:
        self.trace, self.label = trace, label
        made = call("epoll_create1", 0)
        assert not isinstance(made, Errno), made
        self.fd = made
        self._labels: dict[int, str] = {}

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self.fd >= 0:
            call("close", self.fd)
        self.fd = -1

    def ctl(self, op: int, fd: int, label: str, events: int) -> Any:
        """Call epoll_ctl."""
        key = next((key for key, known in self._labels.items() if known == label), len(self._labels) + 1)
        self._labels[key] = label
        done = call("epoll_ctl", self.fd, op, fd, ctypes.byref(libc.EpollEvent(events, key)))
        word = {ADD: "add", DEL: "del", MOD: "mod"}.get(op, str(op))
        self.trace.add(f"{self.label}.{word}({label}, {names.events(events)}) = {done}")
        return done

    def add(self, sock: Sock | Epoll, events: int) -> Any:
        """Watch something."""
        return self.ctl(ADD, sock.fd, sock.label, events)

    def mod(self, sock: Sock | Epoll, events: int) -> Any:
        """Watch it otherwise."""
        return self.ctl(MOD, sock.fd, sock.label, events)

    def remove(self, sock: Sock | Epoll) -> Any:
        """Watch it no more."""
        return self.ctl(DEL, sock.fd, sock.label, 0)

    def _wait(self, milliseconds: int, most: int) -> list[tuple[str, int]] | Errno:
        array = (libc.EpollEvent * max(1, most))()
        done = call("epoll_wait", self.fd, array, most, milliseconds)
        if isinstance(done, Errno):
            return done
        return [(self._labels.get(event.data, f"data {event.data}"), event.events) for event in array[:done]]

    def peek(self, most: int, milliseconds: int = 0) -> list[tuple[str, int]]:
        """Wait without a word in the trace; it must succeed."""
        got = self._wait(milliseconds, most)
        if isinstance(got, Errno):
            raise RuntimeError(f"{self.label}.wait: {got}")
        return got

    def wait(self, milliseconds: int = 2000, most: int = 16, ordered: bool = True) -> Any:
        """Wait; what became ready first is told first, but which of a socket and a pipe that was is not known."""
        got = self._wait(milliseconds, most)
        if not ordered and not isinstance(got, Errno):
            got = sorted(got)
        word = "now" if milliseconds == 0 else "wait"
        self.trace.add(f"{self.label}.{word}({most}) = {self.shown(got)}")
        return got

    def now(self, most: int = 16, ordered: bool = True) -> Any:
        """Look without waiting."""
        return self.wait(0, most, ordered)

    @staticmethod
    def shown(got: list[tuple[str, int]] | Errno) -> str:
        """Return events in readable form."""
        if isinstance(got, Errno):
            return got
        return "[" + ", ".join(f"{label}:{names.events(bits)}" for label, bits in got) + "]"

    def until(self, wanted: dict[str, int]) -> None:
        """Wait until all these were told, however many events that takes; the trace has the sum."""
        seen: dict[str, int] = {}

        def look() -> bool:
            got = self._wait(20, 64)
            for label, bits in got if not isinstance(got, Errno) else []:
                seen[label] = seen.get(label, 0) | bits
            return all(seen.get(label, 0) & bits == bits for label, bits in wanted.items())

        ops.until(look, bool)
        self.trace.add(f"{self.label}.until() = {self.shown(sorted(seen.items()))}")
