# SPDX-License-Identifier: MulanPSL-2.0
"""Every counter of a worker page, as native/include/gazelle/counters.h has it; a test compares the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Counter:
    """One counter. A total only grows while the worker lives, from 0; a gauge is how many there are now."""

    name: str
    unit: str
    kind: Literal["total", "gauge"]
    meaning: str


# By position; the list grows at the end only.
COUNTERS = (
    Counter("turns", "turns", "total", "passes of the worker's loop"),
    Counter("sleeps", "sleeps", "total", "times the worker slept because nothing was to do"),
    Counter(
        "wakeups_written",
        "system calls",
        "total",
        "programs the worker woke by a system call; others looked by themselves",
    ),
    Counter("rx_packets", "frames", "total", "frames taken from the port; one of a tap may be a super-frame of 64 KiB"),
    Counter("rx_bytes", "bytes", "total", "bytes of these frames, headers included"),
    Counter("tx_packets", "frames", "total", "frames given to the port"),
    Counter("tx_bytes", "bytes", "total", "bytes of these frames, headers included"),
    Counter("rx_dropped", "frames", "total", "received frames that were for nobody here, malformed, or met no memory"),
    Counter("tx_dropped", "frames", "total", "frames the port had no room for; TCP sends them again"),
    Counter("rx_bad_checksum", "frames", "total", "received frames whose checksum was wrong"),
    Counter("alloc_failed", "buffers", "total", "buffers that were wanted and not there"),
    Counter("steered_out", "frames", "total", "frames handed to the worker whose connection they belong to"),
    Counter("steered_in", "frames", "total", "frames that other workers handed to this one"),
    Counter(
        "steer_dropped",
        "frames",
        "total",
        "frames lost between two workers: the other's ring was full, or it does not run",
    ),
    Counter("connections", "connections", "gauge", "TCP connections this worker has now"),
    Counter("accepted", "connections", "total", "connections that clients opened"),
    Counter("connected", "connections", "total", "connections that attached programs opened over the wire"),
    Counter("resets_sent", "segments", "total", "connections ended by a reset of ours"),
    Counter("resets_received", "segments", "total", "connections ended by a reset of the peer"),
    Counter("retransmits", "segments", "total", "segments sent again"),
    Counter(
        "listen_overflow", "connections", "total", "handshakes refused because the program's accept queue was full"
    ),
    Counter("requests", "requests", "total", "requests of programs carried out: connect, listen, bind, close"),
    Counter("attachments", "processes", "gauge", "processes attached now"),
    Counter("attached_total", "processes", "total", "processes that have attached"),
    Counter(
        "detached_hostile",
        "processes",
        "total",
        "processes cut off because they broke the protocol of the shared memory",
    ),
    Counter("sockets", "sockets", "gauge", "sockets that attached processes hold on this worker now"),
    Counter("mbufs_free", "buffers", "gauge", "packet buffers free now"),
    Counter("rx_fifo_bytes", "bytes", "total", "received bytes put into the programs' FIFOs"),
    Counter("tx_fifo_bytes", "bytes", "total", "bytes taken from the programs' FIFOs"),
    Counter("no_match", "frames", "total", "TCP segments for which there was neither connection nor listener"),
    Counter("datagrams_in", "datagrams", "total", "datagrams given to programs"),
    Counter("datagrams_out", "datagrams", "total", "datagrams sent for programs"),
    Counter("datagrams_dropped", "datagrams", "total", "datagrams dropped because the program's FIFO was full"),
    Counter(
        "syncookies_sent", "segments", "total", "SYNs answered by a cookie because too many handshakes were half open"
    ),
    Counter("syncookies_accepted", "connections", "total", "connections made from such a cookie"),
    Counter("syncookies_failed", "segments", "total", "ACKs that looked like a cookie's and were none"),
    Counter(
        "pairs_refused",
        "connections",
        "total",
        "connections between programs of this host that were refused, as the programs say",
    ),
)
