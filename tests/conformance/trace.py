# SPDX-License-Identifier: MulanPSL-2.0
"""What a case observed, one line per call, without what may differ between two runs of the same thing.

Ports and addresses get names in the order they show; descriptors, pids and durations never enter.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Any

from conformance.libc import Address, Errno

_SHOWN_BYTES = 24


class Trace:
    """Lines in the order they happened. A thread collects its own, which are added where it is joined."""

    def __init__(self, names: dict[str, str], emit: Callable[[str], None]) -> None:
        self._names = dict(names)
        self._ports: dict[int, str] = {}
        self._emit = emit
        self._own = threading.local()

    def add(self, line: str) -> None:
        """Note one line."""
        lines: list[str] | None = getattr(self._own, "lines", None)
        if lines is None:
            self._emit(line)
        else:
            lines.append(line)

    def collect(self, lines: list[str]) -> None:
        """Have the lines of the calling thread go to a list."""
        self._own.lines = lines

    def port(self, port: int, name: str) -> None:
        """Give a port a name of the case's choice."""
        self._ports[port] = name

    def address(self, address: Address | None) -> str:
        """Return an address's name."""
        if not isinstance(address, tuple):
            return str(address)
        host, port = address
        if port not in self._ports:
            self._ports[port] = "0" if port == 0 else f"e{len(self._ports)}"
        return f"{self._names.get(host, host)}:{self._ports[port]}"

    def value(self, value: Any) -> str:
        """Return a result in readable form."""
        if isinstance(value, Errno):
            return str(value)
        if isinstance(value, bytes):
            return data(value)
        if isinstance(value, (list, tuple)):
            if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
                return self.address((value[0], value[1]))
            return "[" + ", ".join(self.value(part) for part in value) + "]"
        return str(value)


def data(raw: bytes) -> str:
    """Return bytes in readable form: short ones themselves, long ones by length and checksum."""
    if len(raw) <= _SHOWN_BYTES:
        return repr(raw)[1:]
    return f"<{len(raw)} bytes {zlib.crc32(raw):08x}>"
