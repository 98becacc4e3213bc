# SPDX-License-Identifier: MulanPSL-2.0
"""The vocabulary: operations on descriptors of the process they run in, with arguments and results that fit in JSON.

A case's process runs them itself; the other end runs them when it is told to (see ends.py). Failures are values: Errno.
"""

from __future__ import annotations

import ctypes
import random
import select
import socket
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

from conformance import libc
from conformance.libc import Address, Errno, call, pack, size, unpack

DEADLINE_S = 2.0
_LOOK_EVERY_S = 0.0005
_QUIET_S = 0.15  # longer than a delayed acknowledgement, which may still make room
RDHUP = 0x2000
ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL

Op = Callable[..., Any]
Control = tuple[int, int, bytes]  # a control message: level, type, data
OPS: dict[str, Op] = {}


def op(function: Op) -> Op:
    """Enter a function into the vocabulary under its name."""
    OPS[function.__name__.rstrip("_")] = function
    return function


def pattern(count: int, seed: int = 0) -> bytes:
    """Return bytes that no shift or swap leaves the same."""
    return random.Random(seed).randbytes(count)


@op
def socket_(family: int, kind: int, protocol: int = 0) -> int | Errno:
    return call("socket", family, kind, protocol)


@op
def bind(fd: int, address: Address | None, length: int = -1) -> int | Errno:
    raw = pack(_tuple(address))
    return call("bind", fd, raw, len(raw) if length < 0 else length)


@op
def listen(fd: int, backlog: int) -> int | Errno:
    return call("listen", fd, backlog)


@op
def connect(fd: int, address: Address | None, length: int = -1) -> int | Errno:
    raw = pack(_tuple(address))
    return call("connect", fd, raw, len(raw) if length < 0 else length)


@op
def accept(fd: int, flags: int = -1) -> Any:
    """Return [descriptor, address of the other end]; flags -1 is accept(), others accept4()."""
    raw, length = (ctypes.c_char * 128)(), ctypes.c_uint32(128)
    args = (fd, raw, ctypes.byref(length))
    new = call("accept", *args) if flags == -1 else call("accept4", *args, flags)
    return new if isinstance(new, Errno) else [new, unpack(raw.raw[: length.value])]


@op
def close(fd: int) -> int | Errno:
    return call("close", fd)


@op
def shutdown(fd: int, how: int) -> int | Errno:
    return call("shutdown", fd, how)


def _name(function: str, fd: int, room: int) -> Any:
    raw, length = (ctypes.c_char * 128)(), ctypes.c_uint32(room)
    done = call(function, fd, raw, ctypes.byref(length))
    if isinstance(done, Errno):
        return done
    return unpack(raw.raw[: length.value]) if room >= 16 else [length.value, raw.raw[:room]]


@op
def getsockname(fd: int, room: int = 128) -> Any:
    return _name("getsockname", fd, room)


@op
def getpeername(fd: int, room: int = 128) -> Any:
    return _name("getpeername", fd, room)


@op
def send(fd: int, data: bytes, flags: int = 0) -> int | Errno:
    return call("send", fd, data, size(len(data)), flags)


@op
def write(fd: int, data: bytes) -> int | Errno:
    return call("write", fd, data, size(len(data)))


@op
def recv(fd: int, count: int, flags: int = 0) -> bytes | Errno:
    buffer = (ctypes.c_char * max(1, count))()
    got = call("recv", fd, buffer, size(count), flags)
    return got if isinstance(got, Errno) else buffer.raw[: min(got, count)]


@op
def read(fd: int, count: int) -> bytes | Errno:
    buffer = (ctypes.c_char * max(1, count))()
    got = call("read", fd, buffer, size(count))
    return got if isinstance(got, Errno) else buffer.raw[:got]


@op
def sendto(fd: int, data: bytes, flags: int, address: Address | None) -> int | Errno:
    raw = pack(_tuple(address))
    return call("sendto", fd, data, size(len(data)), flags, raw, len(raw))


@op
def recvfrom(fd: int, count: int, flags: int = 0) -> Any:
    """Return [data, address, what the call returned]."""
    buffer, raw, length = (ctypes.c_char * max(1, count))(), (ctypes.c_char * 128)(), ctypes.c_uint32(128)
    got = call("recvfrom", fd, buffer, size(count), flags, raw, ctypes.byref(length))
    if isinstance(got, Errno):
        return got
    return [buffer.raw[: min(got, count)], unpack(raw.raw[: length.value]), got]


@op
def writev(fd: int, parts: list[bytes]) -> int | Errno:
    filled = libc.filled(parts)  # an iovec does not keep what it points to alive
    return call("writev", fd, libc.iovecs(filled), len(parts))


@op
def readv(fd: int, sizes: list[int]) -> Any:
    """Return the contents of each buffer, cut where the data ends."""
    rooms = libc.buffers(sizes)
    got = call("readv", fd, libc.iovecs(rooms), len(sizes))
    return got if isinstance(got, Errno) else _split(rooms, got)


def _split(rooms: list[Any], got: int) -> list[bytes]:
    parts = []
    for room in rooms:
        parts.append(room.raw[: max(0, got)])
        got -= len(room)
    return parts


def _header(rooms: list[Any], name: Any = None) -> libc.Msghdr:
    header = libc.Msghdr(iov=libc.iovecs(rooms), iovlen=len(rooms))
    if name is not None:
        header.name, header.namelen = ctypes.addressof(name), len(name)
    return header


@op
def sendmsg(
    fd: int, parts: list[bytes], flags: int = 0, address: Address | None = None, control: Control | None = None
) -> int | Errno:
    raw = pack(_tuple(address)) if address is not None else b""
    name = (ctypes.c_char * len(raw)).from_buffer_copy(raw) if raw else None
    filled = libc.filled(parts)
    header = _header(filled, name)
    if control:
        level, kind, data = control
        said = struct.pack("=Qii", 16 + len(data), level, kind) + data + bytes(-len(data) % 8)
        raw_control = ctypes.create_string_buffer(said, len(said))
        header.control, header.controllen = ctypes.addressof(raw_control), len(said)
    return call("sendmsg", fd, ctypes.byref(header), flags)


@op
def recvmsg(fd: int, sizes: list[int], flags: int = 0) -> Any:
    """Return [what the call returned, the buffers' contents, msg_flags, the name, bytes of control data]."""
    rooms, name, control = libc.buffers(sizes), (ctypes.c_char * 128)(), (ctypes.c_char * 512)()
    header = _header(rooms, name)
    header.control, header.controllen = ctypes.addressof(control), 512
    got = call("recvmsg", fd, ctypes.byref(header), flags)
    if isinstance(got, Errno):
        return got
    return [got, _split(rooms, got), header.flags, unpack(name.raw[: header.namelen]), header.controllen]


@op
def control(fd: int, room: int) -> Any:
    """Receive one datagram; return it, msg_flags and its control messages: [level, type, bytes as numbers]."""
    rooms, raw = libc.buffers([4096]), (ctypes.c_char * max(1, room))()
    header = _header(rooms)
    header.control, header.controllen = ctypes.addressof(raw), room
    got = call("recvmsg", fd, ctypes.byref(header), 0)
    if isinstance(got, Errno):
        return got
    said, at = [], 0
    while at + 16 <= header.controllen:
        length, level, kind = struct.unpack_from("=Qii", raw.raw, at)
        said.append([level, kind, raw.raw[at + 16 : at + length]])
        at += (length + 7) & ~7
    return [rooms[0].raw[:got], header.flags, said]


@op
def sendmmsg(fd: int, messages: list[bytes], flags: int = 0) -> Any:
    """Return [messages sent, length of each]."""
    keep = [libc.filled([message]) for message in messages]
    array = (libc.Mmsghdr * max(1, len(messages)))(*[libc.Mmsghdr(hdr=_header(rooms)) for rooms in keep])
    got = call("sendmmsg", fd, array, len(messages), flags)
    return got if isinstance(got, Errno) else [got, [array[i].len for i in range(got)]]


@op
def recvmmsg(fd: int, sizes: list[int], flags: int = 0, seconds: float | None = None) -> Any:
    """Return the data of each message received."""
    keep = [libc.buffers([n]) for n in sizes]
    array = (libc.Mmsghdr * max(1, len(sizes)))(*[libc.Mmsghdr(hdr=_header(rooms)) for rooms in keep])
    got = call("recvmmsg", fd, array, len(sizes), flags, libc.timespec(seconds))
    return got if isinstance(got, Errno) else [keep[i][0].raw[: array[i].len] for i in range(got)]


@op
def setsockopt(fd: int, level: int, name: int, value: int | bytes, length: int = -1) -> int | Errno:
    raw = value if isinstance(value, bytes) else struct.pack("=i", value)
    return call("setsockopt", fd, level, name, raw, len(raw) if length < 0 else length)


@op
def getsockopt(fd: int, level: int, name: int, room: int = 4) -> Any:
    """Return an int for up to 4 bytes of room, else the bytes; a length that differs from the room shows too."""
    raw, length = (ctypes.c_char * max(8, room))(), ctypes.c_uint32(room)
    done = call("getsockopt", fd, level, name, raw, ctypes.byref(length))
    if isinstance(done, Errno):
        return done
    value: Any = (
        int.from_bytes(raw.raw[: length.value], "little", signed=True) if room <= 4 else raw.raw[: length.value]
    )
    return value if length.value == room or room > 4 else [value, length.value]


@op
def fcntl(fd: int, command: int, argument: int = 0) -> int | Errno:
    return call("fcntl", fd, command, argument)


@op
def ioctl(fd: int, request: int, value: int = 0) -> Any:
    """Return the int behind the argument after the call."""
    slot = ctypes.c_int(value)
    done = call("ioctl", fd, ctypes.c_ulong(request), ctypes.byref(slot))
    return done if isinstance(done, Errno) else slot.value


@op
def dup(fd: int) -> int | Errno:
    return call("dup", fd)


@op
def poll(fd: int, events: int, milliseconds: int) -> int | Errno:
    """Return the revents of one descriptor."""
    slot = libc.Pollfd(fd, events, 0)
    done = call("poll", ctypes.byref(slot), ctypes.c_ulong(1), milliseconds)
    return done if isinstance(done, Errno) else slot.revents & 0xFFFF


def until(look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    """Look until the answer is good or the deadline passes; return the last answer."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        answer = look()
        if good(answer) or time.monotonic() > deadline:
            return answer
        time.sleep(_LOOK_EVERY_S)


@op
def wait(fd: int, bits: int, events: int) -> int | Errno:
    """Wait until one of `bits` shows in poll; return all that shows of `events`."""
    return until(  # type: ignore[no-any-return]
        lambda: poll(fd, events | bits, 5), lambda got: isinstance(got, Errno) or bool(got & bits)
    )


@op
def queued(fd: int, count: int) -> int | Errno:
    """Wait until FIONREAD says so many bytes; return what it says at last."""
    return until(lambda: ioctl(fd, 0x541B), lambda got: got == count)  # type: ignore[no-any-return]


@op
def send_all(fd: int, count: int, seed: int, piece: int) -> Any:
    """Send so many bytes of the pattern, in pieces, waiting where there is no room."""
    data, sent = pattern(count, seed), 0
    while sent < count:
        done = send(fd, data[sent : sent + piece], socket.MSG_NOSIGNAL)
        if done == "EAGAIN":
            poll(fd, select.POLLOUT, 2000)
        elif isinstance(done, Errno):
            return [sent, done]
        else:
            sent += done
    return sent


@op
def recv_all(fd: int, count: int, piece: int) -> Any:
    """Receive so many bytes, or up to the end; return [bytes, checksum] and the error if there is one."""
    got, checksum = 0, 0
    while got < count:
        data = recv(fd, min(piece, count - got))
        if data == "EAGAIN":
            poll(fd, select.POLLIN, 2000)
        elif isinstance(data, Errno):
            return [got, checksum, data]
        elif not data:
            break
        else:
            got, checksum = got + len(data), zlib.crc32(data, checksum)
    return [got, checksum]


@op
def fill(fd: int, piece: int) -> str | Errno:
    """Send without waiting until nothing more goes in for a while: how much that is depends on buffers."""
    data, since = bytes(piece), time.monotonic()
    while time.monotonic() - since < _QUIET_S:
        done = send(fd, data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if isinstance(done, Errno) and done != "EAGAIN":
            return done
        if isinstance(done, Errno):
            time.sleep(_LOOK_EVERY_S)
        else:
            since = time.monotonic()
    return "full"


@op
def drain(fd: int) -> Any:
    """Receive without waiting until there is nothing for a while; return whether there was something, and the end."""
    got, since = 0, time.monotonic()
    while time.monotonic() - since < _QUIET_S:
        data = recv(fd, 65536, socket.MSG_DONTWAIT)
        if isinstance(data, Errno) and data != "EAGAIN":
            return [got > 0, data]
        if data == b"":
            return [got > 0, "end"]
        if isinstance(data, Errno):
            time.sleep(_LOOK_EVERY_S)
        else:
            got, since = got + len(data), time.monotonic()
    return [got > 0, "EAGAIN"]


def _tuple(address: Any) -> Any:
    return tuple(address) if isinstance(address, list) else address
