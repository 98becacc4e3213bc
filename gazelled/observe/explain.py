# SPDX-License-Identifier: MulanPSL-2.0
"""What `gazelled run --explain` says at the end: which path the sockets of a program took, and why.

The program, and all it starts, count in memory that the file in $GAZELLED_EXPLAIN leads to (explain.h).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from types import TracebackType

from gazelled.pages.worker_page import KERNEL_REASONS, KERNEL_REASONS_SIZE

REFUSAL_SIZE = 64
_REFUSAL_THERE = 2
KINDS = ("accepted", "connected", "same_host", "listener", "datagram")

_KINDS = {
    "accepted": "TCP connections accepted",
    "connected": "TCP connections made",
    "same_host": "TCP connections with attached programs of this host",
    "listener": "TCP listeners",
    "datagram": "UDP sockets",
}
# Why the kernel has a socket, and what to do about it if the user wants it on the stack.
REASONS = {
    "family": ("of a family or type the stack does not serve", ""),
    "address": ("at an address that is not the stack's", "let the program use {address}, or 0.0.0.0"),
    "loopback": ("on loopback, where no attached program listens", "start the other program by `gazelled run`, too"),
    "no_route": ("to a peer to which the stack has no route", "set network.gateway_addr in the configuration"),
    "not_attached": ("made while no worker could be attached", "`gazelled status` says how the workers are"),
    "no_resource": ("made when the stack had no free socket", "`gazelled status` says which programs have them"),
    "client": ("accepted from plain clients on loopback or at the host's own addresses", ""),
    "option": ("with an option that the stack does not have", "docs/reference/support.md lists them"),
}


class _Explain(ctypes.Structure):
    _fields_ = [
        ("accelerated", ctypes.c_uint32 * len(KINDS)),
        ("kernel", ctypes.c_uint32 * KERNEL_REASONS_SIZE),
        ("refused", ctypes.c_uint32),
        ("why", ctypes.c_char * REFUSAL_SIZE),
    ]


def layout() -> dict[str, tuple[int, dict[str, int]]]:
    """Return size and field offsets of the structure, to be compared with `lstack --abi`."""
    offsets = {row[0]: getattr(_Explain, row[0]).offset for row in _Explain._fields_}
    return {"gz_explain": (ctypes.sizeof(_Explain), offsets)}


class Explanation:
    """The memory a program counts in. It goes when this process ends."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("gazelled-explain")
        os.ftruncate(self._fd, ctypes.sizeof(_Explain))
        self._map = mmap.mmap(self._fd, ctypes.sizeof(_Explain))

    def __enter__(self) -> Explanation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()
        os.close(self._fd)

    @property
    def path(self) -> str:
        """Return where programs find it, as long as this process lives: no descriptor of theirs is taken for it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return how many sockets the stack had, by kind, and the kernel, by reason; zeros are left out."""
        raw = _Explain.from_buffer_copy(self._map)
        return _some(KINDS, list(raw.accelerated)), _some(KERNEL_REASONS, list(raw.kernel))

    def refusal(self) -> str:
        """Return what a worker said that refused one of the programs; nothing if none has.

        Programs can write there what they like: what could move a terminal's cursor is left out.
        """
        raw = _Explain.from_buffer_copy(self._map)
        if raw.refused != _REFUSAL_THERE:
            return ""
        return "".join(each for each in raw.why.decode("ascii", "replace") if each.isprintable())


def _some(names: tuple[str, ...], values: list[int]) -> dict[str, int]:
    return {name: count for name, count in zip(names, values, strict=False) if count}


def explain_lines(
    program: str, address: str, accelerated: dict[str, int], kernel: dict[str, int], refusal: str = ""
) -> Iterator[str]:
    """Yield what a person is told; `address` is the stack's, `refusal` what a worker said that refused the program."""
    if refusal:
        yield f"gazelled: a worker refused {program} or what it has started: {refusal}"
    yield f"gazelled: sockets of {program} and all it has started:"
    if not accelerated and not kernel:
        yield "  none that TCP or UDP could use"
        return
    rows: list[tuple[int, str]] = [(sum(accelerated.values()), "on the stack")]
    rows += [(count, f"  {_KINDS[kind]}") for kind, count in accelerated.items()]
    rows += [(sum(kernel.values()), "on the kernel")]
    for reason, count in kernel.items():
        why, hint = REASONS[reason]
        rows.append((count, f"  {why}" + (f"; {hint.format(address=address)}" if hint else "")))
    width = len(str(max(count for count, _ in rows)))
    for count, what in rows:
        yield f"  {count:>{width}}  {what}"
