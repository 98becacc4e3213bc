# SPDX-License-Identifier: MulanPSL-2.0
"""What `gazelled selftest` measures from the kernel's side: round trips of a small message, and bytes both ways."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

_MESSAGE = 64
_CHUNK = 1 << 18
_WAIT_S = 5.0


@dataclass(frozen=True)
class Speed:
    """What one connection has done."""

    round_trips: int
    seconds: float
    median_us: float
    longest_us: float
    bytes_each_way: int
    transfer_seconds: float


def measure(address: str, port: int, seconds: float, look: Callable[[], None]) -> Speed:
    """Echo for so long, half of it small messages and half of it many bytes; ValueError if a byte comes back wrong.

    `look` is called while the connection is still there.
    """
    with socket.create_connection((address, port), timeout=_WAIT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = []
        began = time.perf_counter()
        while (before := time.perf_counter()) - began < seconds / 2:
            message = os.urandom(_MESSAGE)
            client.sendall(message)
            if _exactly(client, _MESSAGE) != message:
                raise ValueError("what came back is not what was sent")
            times.append(time.perf_counter() - before)
        talked = time.perf_counter() - began
        chunk, sent, began = os.urandom(_CHUNK), 0, time.perf_counter()
        while time.perf_counter() - began < seconds / 2:
            client.sendall(chunk)
            if _exactly(client, _CHUNK) != chunk:
                raise ValueError("what came back is not what was sent")
            sent += _CHUNK
        took = time.perf_counter() - began
        look()
    times.sort()
    return Speed(len(times), talked, times[len(times) // 2] * 1e6, times[-1] * 1e6, sent, took)


def _exactly(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = client.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the other side closed")
        data += more
    return bytes(data)
