# SPDX-License-Identifier: MulanPSL-2.0
"""Whether a program can be put on the stack: LD_PRELOAD reaches only what the C library's loader starts."""

from __future__ import annotations

import os
import struct
from pathlib import Path

_HEAD = 64
_SCRIPTS_DEEP = 4  # an interpreter may be a script itself, as far as the kernel follows
_PT_INTERP, _PT_NOTE = 3, 4
_GO_NOTE = b"Go\0\0"


def obstacle(program: Path) -> str | None:
    """Say why the shim would not get into a program, None if it will."""
    for _ in range(_SCRIPTS_DEEP):
        secure = _runs_secure(program)
        if secure is not None:
            return secure
        try:
            with program.open("rb") as file:
                head = file.read(256)
                if not head.startswith(b"#!"):
                    return _elf_obstacle(program, file.fileno(), head)
        except OSError:
            return None  # not ours to read, but perhaps to execute: the loader decides
        words = head[2:].split(b"\n", 1)[0].split()
        if not words:
            return None
        program = Path(os.fsdecode(words[0]))
    return None


def _runs_secure(program: Path) -> str | None:
    """Say so if the kernel would start it with other rights than ours, in which case the loader ignores LD_PRELOAD."""
    try:
        info = program.stat()
    except OSError:
        return None
    if info.st_mode & 0o4000 and info.st_uid != os.getuid():
        return f"{program} is setuid: the loader ignores LD_PRELOAD for it"
    if info.st_mode & 0o2000 and info.st_gid != os.getgid():
        return f"{program} is setgid: the loader ignores LD_PRELOAD for it"
    try:
        has_capabilities = "security.capability" in os.listxattr(program)
    except OSError:
        has_capabilities = False
    if has_capabilities and os.getuid() != 0:
        return f"{program} has file capabilities: the loader ignores LD_PRELOAD for it"
    return None


def _elf_obstacle(program: Path, fd: int, head: bytes) -> str | None:
    if not head.startswith(b"\x7fELF") or len(head) < _HEAD:
        return None  # the kernel refuses it, in its own words
    if head[4] != 2:
        return f"{program} is a 32-bit program"
    if (head[5], head[18:20]) != _our_machine():
        return f"{program} is a program of another kind of machine"
    offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    interpreter = ""
    for index in range(count):
        entry = os.pread(fd, size, offset + index * size)
        if len(entry) < 56:
            return None
        kind, start, length = struct.unpack_from("<I", entry)[0], *_position(entry)
        if kind == _PT_INTERP:
            interpreter = os.fsdecode(os.pread(fd, length, start).rstrip(b"\0"))
        elif kind == _PT_NOTE and _GO_NOTE in os.pread(fd, min(length, 4096), start)[:32]:
            return f"{program} is a Go program: it calls the kernel without the C library"
    if not interpreter:
        return f"{program} is statically linked: there is no loader that reads LD_PRELOAD"
    if not Path(interpreter).name.startswith("ld-linux"):
        return f"{program} uses another C library ({interpreter})"
    return None


def _our_machine() -> tuple[int, bytes]:
    """Return byte order and e_machine as our own interpreter's file has them, and the library built for it."""
    with Path("/proc/self/exe").open("rb") as file:
        head = file.read(20)
    return head[5], head[18:20]


def _position(entry: bytes) -> tuple[int, int]:
    """Return a segment's place in the file and its length there."""
    start, length = struct.unpack_from("<Q16xQ", entry, 8)
    return start, length
