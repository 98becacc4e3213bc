# SPDX-License-Identifier: MulanPSL-2.0
"""Numbers a trace shows by name."""

from __future__ import annotations

import select
import socket

from conformance.ops import RDHUP

IN, OUT, PRI = select.POLLIN, select.POLLOUT, select.POLLPRI
ERR, HUP, NVAL = select.POLLERR, select.POLLHUP, select.POLLNVAL
ET, ONESHOT, EXCLUSIVE = select.EPOLLET, select.EPOLLONESHOT, 1 << 28
WAKEUP = 1 << 29
READ, WRITE, BOTH = socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR

_POLL = {
    IN: "in", PRI: "pri", OUT: "out", ERR: "err", HUP: "hup", NVAL: "nval", RDHUP: "rdhup",
    select.EPOLLRDNORM: "rdnorm", select.EPOLLRDBAND: "rdband", select.EPOLLWRNORM: "wrnorm",
    select.EPOLLWRBAND: "wrband", ET: "et", ONESHOT: "oneshot", EXCLUSIVE: "exclusive", WAKEUP: "wakeup",
}  # fmt: skip
_MSG = {
    getattr(socket, name): name.removeprefix("MSG_").lower()
    for name in (
        "MSG_OOB", "MSG_PEEK", "MSG_DONTROUTE", "MSG_CTRUNC", "MSG_TRUNC", "MSG_DONTWAIT", "MSG_EOR", "MSG_WAITALL",
        "MSG_NOSIGNAL", "MSG_ERRQUEUE", "MSG_CMSG_CLOEXEC", "MSG_MORE",
    )
} | {0x10000: "waitforone"}  # fmt: skip
_HOW = {READ: "rd", WRITE: "wr", BOTH: "rdwr"}


def _bits(value: int, table: dict[int, str]) -> str:
    names = [name for bit, name in table.items() if value & bit]
    rest = value & ~sum(table)
    return "|".join([*names, *([hex(rest)] if rest else [])]) or "none"


def events(value: int) -> str:
    """Return poll or epoll bits by name."""
    return _bits(value, _POLL)


def flags(value: int) -> str:
    """Return MSG_ bits by name."""
    return _bits(value, _MSG)


def how(value: int) -> str:
    """Return shutdown's argument by name."""
    return _HOW.get(value, str(value))
