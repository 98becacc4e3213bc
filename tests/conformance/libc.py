# SPDX-License-Identifier: MulanPSL-2.0
"""libc as a C program calls it, so that nothing of Python's stands between a case and the call it is about.

Every function returns what libc returned, or an Errno. A preloaded library wins, as it would
in C: names are looked up in the global scope.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from typing import Any

_library = ctypes.CDLL(None, use_errno=True)
_LONG = {
    "read", "write", "readv", "writev", "recv", "send", "recvfrom", "sendto", "recvmsg", "sendmsg",
    "sendfile", "splice", "pread", "pwrite", "syscall",
}  # fmt: skip


class Errno(str):
    """A call's failure, by the errno's name."""

    __slots__ = ()


Address = tuple[str, int] | str


def call(name: str, *args: Any) -> int | Errno:
    """Call a function of libc."""
    function = getattr(_library, name)
    function.restype = ctypes.c_ssize_t if name in _LONG else ctypes.c_int
    ctypes.set_errno(0)
    value = int(function(*args))
    if value != -1:
        return value
    number = ctypes.get_errno()
    return Errno(errno.errorcode.get(number, f"errno {number}"))


def size(n: int) -> ctypes.c_size_t:
    """Return a size_t argument."""
    return ctypes.c_size_t(n)


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    _fields_ = (("hdr", Msghdr), ("len", ctypes.c_uint32))


class Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class EpollEvent(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


def timespec(seconds: float | None) -> Any:
    """Return a timespec argument; None waits for ever."""
    return None if seconds is None else ctypes.byref(Timespec(int(seconds), int(seconds % 1 * 1e9)))


def iovecs(buffers: list[Any]) -> Any:
    """Return an iovec array over ctypes buffers."""
    array = (Iovec * max(1, len(buffers)))()
    for slot, buffer in zip(array, buffers, strict=False):
        slot.base, slot.len = ctypes.addressof(buffer), ctypes.sizeof(buffer)
    return array


def buffers(sizes: list[int]) -> list[Any]:
    """Return empty buffers of these sizes."""
    return [(ctypes.c_char * n)() for n in sizes]


def filled(parts: list[bytes]) -> list[Any]:
    """Return buffers with these contents."""
    return [(ctypes.c_char * len(part))(*[bytes([b]) for b in part]) for part in parts]


def pack(address: Address | None) -> bytes:
    """Return a sockaddr: (host, port) for IPv4 and IPv6, a path for UNIX, None for AF_UNSPEC."""
    if address is None:
        return struct.pack("=H14x", socket.AF_UNSPEC)
    if isinstance(address, str):
        return struct.pack("=H", socket.AF_UNIX) + address.encode() + b"\0"
    host, port = address
    if ":" in host:
        return (
            struct.pack("=H", socket.AF_INET6)
            + struct.pack(">HI", port, 0)
            + socket.inet_pton(socket.AF_INET6, host)
            + struct.pack("=I", 0)
        )
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)


def unpack(raw: bytes) -> Address | None:
    """Return the address a sockaddr holds, None if it is empty or of another family."""
    if len(raw) < 2:
        return None
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_INET and len(raw) >= 8:
        return socket.inet_ntoa(raw[4:8]), int(struct.unpack_from(">H", raw, 2)[0])
    if family == socket.AF_INET6 and len(raw) >= 24:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int(struct.unpack_from(">H", raw, 2)[0])
    return f"family {family}"
