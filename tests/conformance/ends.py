# SPDX-License-Identifier: MulanPSL-2.0
"""The two ends of a case: `me` runs operations here, `peer` has the other process run them. Sock hides which."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Protocol

from conformance import names
from conformance.libc import Address, Errno
from conformance.ops import OPS, Control
from conformance.trace import Trace, data

OPENS = {"socket", "accept", "dup"}
SEEN = names.IN | names.OUT | names.PRI | 0x2000


def encode(value: Any) -> Any:
    """Return a value in a form JSON knows."""
    if isinstance(value, Errno):
        return {"errno": str(value)}
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    return value


def decode(value: Any) -> Any:
    """Undo encode()."""
    if isinstance(value, dict):
        return Errno(value["errno"]) if "errno" in value else value["bytes"].encode("latin-1")
    if isinstance(value, list):
        parts = [decode(part) for part in value]
        if len(parts) == 2 and type(parts[0]) is str and isinstance(parts[1], int):
            return tuple(parts)  # an address
        return parts
    return value


class Lines:
    """Lines of JSON over two pipes; no buffering that a fork could double."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes, self._rest = reads, writes, b""

    def put(self, message: Any) -> None:
        """Send one message."""
        raw = json.dumps(message).encode() + b"\n"
        while raw:
            raw = raw[os.write(self._writes, raw) :]

    def get(self) -> Any:
        """Wait for a message; EOFError when the other side is gone."""
        while b"\n" not in self._rest:
            more = os.read(self._reads, 1 << 16)
            if not more:
                raise EOFError
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)


class End(Protocol):
    """Where operations run."""

    def run(self, op: str, *args: Any) -> Any:
        """Run one operation of the vocabulary."""


class Here:
    """This process. Remembers what it opened, so that a case can forget."""

    def __init__(self) -> None:
        self.opened: set[int] = set()

    def run(self, op: str, *args: Any) -> Any:
        value = OPS[op](*args)
        if op in OPENS and not isinstance(value, Errno):
            self.opened.add(value[0] if op == "accept" else value)
        elif op == "close":
            self.opened.discard(args[0])
        return value

    def close_all(self) -> None:
        """Close what is still open."""
        for fd in sorted(self.opened):
            OPS["close"](fd)
        self.opened.clear()


class There:
    """The other process."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def run(self, op: str, *args: Any) -> Any:
        self.begin(op, *args)
        return self.finish()

    def begin(self, op: str, *args: Any) -> None:
        """Start an operation that may block."""
        self._lines.put([op, encode(args)])
        self._lines.get()  # it has read the request

    def finish(self) -> Any:
        """Wait for the result of what begin() started."""
        return decode(self._lines.get())


class Sock:
    """A descriptor at one end under a label. Every call goes to the trace, with its result."""

    def __init__(self, end: End, trace: Trace, fd: int, label: str) -> None:
        self.end, self.trace, self.fd, self.label = end, trace, fd, label

    def note(self, call: str, value: Any) -> None:
        """Add a line about this socket."""
        self.trace.add(f"{self.label}.{call} = {self.trace.value(value)}")

    def _do(self, op: str, shown: str, *args: Any) -> Any:
        value = self.end.run(op, self.fd, *args)
        self.note(f"{op}({shown})", value)
        return value

    def quietly(self, op: str, *args: Any) -> Any:
        """Run an operation that is not what the case is about; it must succeed."""
        value = self.end.run(op, self.fd, *args)
        if isinstance(value, Errno):
            raise RuntimeError(f"{self.label}.{op}: {value}")
        return value

    def sock(self, fd: int, label: str) -> Sock:
        """Return another descriptor of the same end."""
        return Sock(self.end, self.trace, fd, label)

    # -- connections
    def bind(self, address: Address | None, length: int = -1) -> Any:
        short = f", {length} bytes" if length >= 0 else ""
        return self._do("bind", self.trace.address(address) + short, address, length)

    def listen(self, backlog: int = 16) -> Any:
        return self._do("listen", str(backlog), backlog)

    def connect(self, address: Address | None, length: int = -1) -> Any:
        short = f", {length} bytes" if length >= 0 else ""
        return self._do("connect", self.trace.address(address) + short, address, length)

    def accept(self, label: str = "a", flags: int = -1) -> Sock:
        """Accept; the label's socket has no descriptor (-1) if that failed."""
        value = self.end.run("accept", self.fd, flags)
        failed = isinstance(value, Errno)
        self.note(f"accept({'' if flags == -1 else oct(flags)})", value if failed else value[1])
        return self.sock(-1 if failed else value[0], label)

    def close(self) -> Any:
        return self._do("close", "")

    def shutdown(self, how: int) -> Any:
        return self._do("shutdown", names.how(how), how)

    def reset(self) -> None:
        """Close with a RST."""
        self.quietly("setsockopt", socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._do("close", "rst")

    def getsockname(self, room: int = 128) -> Any:
        return self._do("getsockname", "" if room == 128 else str(room), room)

    def getpeername(self, room: int = 128) -> Any:
        return self._do("getpeername", "" if room == 128 else str(room), room)

    # -- data
    def send(self, raw: bytes, flags: int = 0) -> Any:
        return self._do("send", data(raw) + (f", {names.flags(flags)}" if flags else ""), raw, flags)

    def recv(self, count: int = 100, flags: int = 0) -> Any:
        return self._do("recv", str(count) + (f", {names.flags(flags)}" if flags else ""), count, flags)

    def write(self, raw: bytes) -> Any:
        return self._do("write", data(raw), raw)

    def read(self, count: int = 100) -> Any:
        return self._do("read", str(count), count)

    def sendto(self, raw: bytes, address: Address | None, flags: int = 0) -> Any:
        return self._do("sendto", f"{data(raw)}, {self.trace.address(address)}", raw, flags, address)

    def recvfrom(self, count: int = 100, flags: int = 0) -> Any:
        return self._do("recvfrom", str(count) + (f", {names.flags(flags)}" if flags else ""), count, flags)

    def writev(self, parts: list[bytes]) -> Any:
        return self._do("writev", _many(parts), parts)

    def readv(self, sizes: list[int]) -> Any:
        return self._do("readv", _many(sizes), sizes)

    def sendmsg(
        self, parts: list[bytes], flags: int = 0, address: Address | None = None, control: Control | None = None
    ) -> Any:
        shown = _many(parts) + (f", {names.flags(flags)}" if flags else "")
        shown += f", {self.trace.address(address)}" if address else ""
        return self._do(
            "sendmsg", shown + (f", control {control[:2]}" if control else ""), parts, flags, address, control
        )

    def recvmsg(self, sizes: list[int], flags: int = 0) -> Any:
        value = self.end.run("recvmsg", self.fd, sizes, flags)
        shown = value if isinstance(value, Errno) else [value[0], value[1], names.flags(value[2]), *value[3:]]
        self.note(f"recvmsg({_many(sizes)}{f', {names.flags(flags)}' if flags else ''})", shown)
        return value

    def control(self, room: int = 512) -> Any:
        """Receive a datagram with its control messages; of a packet info's device only that there is one."""
        value = self.end.run("control", self.fd, room)
        if not isinstance(value, Errno):
            for row in value[2]:
                if row[:2] == [0, 8] and len(row[2]) >= 4:
                    row[2] = [row[2][:4] != bytes(4), *row[2][4:]]
                elif row[:2] == [41, 50] and len(row[2]) == 20:
                    row[2] = [*row[2][:16], row[2][16:] != bytes(4)]
                else:
                    row[2] = list(row[2])
            value = [value[0], names.flags(value[1]), str(value[2])]
        self.note(f"control({room})", value)
        return value

    def sendmmsg(self, messages: list[bytes], flags: int = 0) -> Any:
        return self._do("sendmmsg", _many(messages), messages, flags)

    def recvmmsg(self, sizes: list[int], flags: int = 0, seconds: float | None = None) -> Any:
        return self._do("recvmmsg", f"{_many(sizes)}, {names.flags(flags)}, {seconds}", sizes, flags, seconds)

    def send_all(self, count: int, seed: int = 1, piece: int = 65536) -> Any:
        return self._do("send_all", f"{count} in {piece}", count, seed, piece)

    def recv_all(self, count: int, piece: int = 65536) -> Any:
        return self._do("recv_all", f"{count} in {piece}", count, piece)

    def fill(self, piece: int = 65536) -> Any:
        return self._do("fill", "", piece)

    def drain(self) -> Any:
        return self._do("drain", "")

    # -- options and state
    def getsockopt(self, level: int, name: int, label: str = "", room: int = 4) -> Any:
        return self._do("getsockopt", label or f"{level}, {name}", level, name, room)

    def setsockopt(self, level: int, name: int, value: int | bytes, label: str = "", length: int = -1) -> Any:
        short = f", {length} bytes" if length >= 0 else ""
        shown = f"{label or f'{level}, {name}'}, {self.trace.value(value)}{short}"
        return self._do("setsockopt", shown, level, name, value, length)

    def error(self) -> Any:
        """Take SO_ERROR."""
        return self._do("getsockopt", "SO_ERROR", socket.SOL_SOCKET, socket.SO_ERROR, 4)

    def fcntl(self, command: int, argument: int = 0, label: str = "") -> Any:
        return self._do("fcntl", label or f"{command}, {argument}", command, argument)

    def ioctl(self, request: int, value: int = 0, label: str = "") -> Any:
        return self._do("ioctl", label or hex(request), request, value)

    def nonblock(self, on: bool = True) -> None:
        """Set or clear O_NONBLOCK, without a word in the trace."""
        flags = self.quietly("fcntl", 3, 0)
        self.quietly("fcntl", 4, flags | os.O_NONBLOCK if on else flags & ~os.O_NONBLOCK)

    def dup(self, label: str) -> Sock:
        """Duplicate; the trace tells whether it worked."""
        value = self.end.run("dup", self.fd)
        self.note("dup()", value if isinstance(value, Errno) else "ok")
        return self.sock(-1 if isinstance(value, Errno) else value, label)

    # -- readiness
    def poll(self, events: int = SEEN, milliseconds: int = 0) -> Any:
        """Poll this descriptor alone."""
        value = self.end.run("poll", self.fd, events, milliseconds)
        self.note(f"poll({names.events(events)})", value if isinstance(value, Errno) else names.events(value))
        return value

    def wait(self, bits: int, events: int = SEEN) -> Any:
        """Wait until poll shows one of the bits; the trace has all that it shows then."""
        value = self.end.run("wait", self.fd, bits, events)
        self.note(f"wait({names.events(bits)})", value if isinstance(value, Errno) else names.events(value))
        return value

    def queued(self, count: int) -> Any:
        """Wait until so many bytes are there to be read."""
        return self._do("queued", str(count), count)

    def begin(self, op: str, *args: Any) -> None:
        """Start an operation of the peer that may block; see T.blocked and finish()."""
        assert isinstance(self.end, There)
        self.end.begin(op, self.fd, *args)
        self.trace.add(f"{self.label}.{op}(...) begins")

    def finish(self, op: str) -> Any:
        """Wait for what begin() started."""
        assert isinstance(self.end, There)
        value = self.end.finish()
        self.note(f"{op}(...)", value)
        return value


def _many(parts: list[Any]) -> str:
    if len(parts) > 6:
        return f"{len(parts)} of {_many(parts[:1])}"
    return "[" + ", ".join(data(part) if isinstance(part, bytes) else str(part) for part in parts) + "]"
