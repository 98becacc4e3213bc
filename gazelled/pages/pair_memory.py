# SPDX-License-Identifier: MulanPSL-2.0
"""The memory of a pair, two programs of one host that talk without packets: struct gz_pair of gazelle/same_host.h.

Both programs write it, so nothing in it is more than what they say. We only read, by descriptors of theirs in /proc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from gazelled.pages.worker_page import ABI_VERSION

MAGIC = 0x7269617061617A67
SOCKS = 4096
BLOCK = 256 << 10
_MEMBERS = 256
_SIDE, _SIDE_SIZE = 64, 2428096
_PID, _HOLDS = 17540, 19592  # in a side
_SOCK, _SOCK_SIZE = 4857856, 384
HEADER = _SOCK + SOCKS * _SOCK_SIZE
_VIEW = 128  # in a socket

# gz_end: out_head, in_tail, flags, holders; gz_name after 64 bytes of options
_END = struct.Struct("<I4xII12xI32x")
_NAME = struct.Struct("<64x16s16sHHBxHIII12x")
OPEN, CONNECTED, FIN, DEAD, SHUT_WR = 0x001, 0x004, 0x008, 0x010, 0x100


def layout() -> dict[str, tuple[int, dict[str, int]]]:
    """Return what is known of the structures, to be compared with `lstack --abi`."""
    return {
        "gz_pair": (HEADER, {"magic": 0, "abi_version": 8, "side": _SIDE, "sock": _SOCK}),
        "gz_pair_side": (_SIDE_SIZE, {"pid": _PID, "holds": _HOLDS}),
        "gz_pair_sock": (_SOCK_SIZE, {"end": 0, "view": _VIEW}),
    }


@dataclass(frozen=True)
class End:
    """One end of a connection, as its side and the other have written it."""

    number: int
    side: int  # 0 connects, 1 listens
    family: int
    local: bytes
    peer: bytes
    local_port: int
    peer_port: int
    mss: int
    since_ms: int  # low 32 bits of CLOCK_MONOTONIC
    state: str
    held: bool  # a process has it; else it waits to be accepted
    received: int  # bytes in the FIFO towards it, and its own towards the other
    sent: int


def is_pair(memory: bytes) -> bool:
    """Tell whether this is the memory of a pair, of a library of this version."""
    return len(memory) >= HEADER and struct.unpack_from("<QI", memory) == (MAGIC, ABI_VERSION)


def _state(mine: int, other: int) -> str:
    if not other & CONNECTED:
        return "syn-sent"
    if other & FIN:
        return "last-ack" if mine & SHUT_WR else "close-wait"
    return "fin-wait-2" if mine & SHUT_WR else "established"


def ends(memory: bytes) -> Iterator[End]:
    """Yield the ends of all connections, each once its side has not let go of it."""
    for number in range(1, SOCKS):
        at = _SOCK + number * _SOCK_SIZE
        pair = [_END.unpack_from(memory, at + 64 * side) for side in (0, 1)]
        for side in (0, 1):
            (head, tail, flags, holders), (other_head, other_tail, other, _) = pair[side], pair[not side]
            if not flags & OPEN or (flags | other) & DEAD:
                continue
            name = _NAME.unpack_from(memory, at + _VIEW + 128 * side)
            local, peer, local_port, peer_port, family, mss, _listener, _serial, _since_ms = name
            since_ms = _NAME.unpack_from(memory, at + _VIEW + 128)[-1]  # stands in the listening side's only
            yield End(
                number=number,
                side=side,
                family=family,
                local=local,
                peer=peer,
                local_port=local_port,
                peer_port=peer_port,
                mss=mss,
                since_ms=since_ms,
                state=_state(flags, other),
                held=holders > 0,
                received=min((other_head - tail) & 0xFFFFFFFF, BLOCK),
                sent=min((head - other_tail) & 0xFFFFFFFF, BLOCK),
            )


def holder(memory: bytes, end: End) -> int | None:
    """Return the pid of a member that holds it, as that says itself; None if none does."""
    word, bit = end.number // 64 * 8, 1 << end.number % 64
    side = _SIDE + end.side * _SIDE_SIZE
    for member in range(_MEMBERS):
        (pid,) = struct.unpack_from("<I", memory, side + _PID + 4 * member)
        if not pid:
            continue
        (holds,) = struct.unpack_from("<Q", memory, side + _HOLDS + member * SOCKS // 8 + word)
        if holds & bit:
            return int(pid)
    return None
