# SPDX-License-Identifier: MulanPSL-2.0
"""What connections an instance has: asked of its workers, and read from the memory of same-host pairs."""

from __future__ import annotations

import os
import pwd
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypedDict

from gazelled.base.errors import GazelledError
from gazelled.base.printable import printable
from gazelled.instance.run_dir import RunDir
from gazelled.instance.worker_control import CONNECTIONS, WorkerControl, message
from gazelled.observe.pairs import pairs
from gazelled.pages import pair_memory

Kind = Literal["tcp", "listener", "udp", "pair"]
END = 2**64 - 1  # GZ_CONNECTIONS_END
AT_ONCE = 64
WAITED_MS = 200  # data that lies for so long waits for somebody
LOSS_MAX = 0.01  # of the segments sent

KINDS: dict[int, Kind] = {1: "tcp", 2: "listener", 3: "udp"}
# By enum gz_connection_state.
STATES = {
    2: "syn-sent", 3: "syn-recv", 4: "established", 5: "fin-wait-1", 6: "fin-wait-2", 7: "close-wait", 8: "closing",
    9: "last-ack", 10: "time-wait",
}  # fmt: skip
_UNACCEPTED, _ORPHAN = 1, 2  # GZ_CONNECTION_*
# In the order of struct gz_connection.
FIELDS = (
    "kind", "state", "flags", "v6", "local_port", "peer_port", "local_addr", "peer_addr", "pid", "uid",
    "rx_queued", "rx_room", "tx_queued", "tx_room", "send_window", "receive_window", "congestion_window",
    "slow_start_threshold", "mss", "rtt_us", "rto_ms", "segments_in", "segments_out", "retransmits", "bytes_received",
    "bytes_acked", "age_ms", "idle_ms",
)  # fmt: skip
_RECORD = struct.Struct("<4B2H16s16s16I4Q")


class Connection(TypedDict):
    """One socket. What cannot be known, or has no meaning for its kind, is None."""

    kind: Kind
    state: str
    queue: int | None  # the worker; of a pair there is none
    program: str
    pid: int | None
    user: str | None
    holder: Literal["program", "accept queue", "none"]
    local_address: str | None  # None: any
    local_port: int
    peer_address: str | None
    peer_port: int | None
    rx_queued: int  # bytes towards the program, or connections that wait to be accepted
    rx_room: int
    tx_queued: int
    tx_room: int
    send_window: int | None
    receive_window: int | None
    congestion_window: int | None
    slow_start_threshold: int | None
    mss: int | None
    rtt_us: int | None
    rto_ms: int | None
    segments_in: int | None
    segments_out: int | None
    retransmits: int | None
    bytes_received: int | None
    bytes_acked: int | None
    age_ms: int | None
    idle_ms: int | None
    slow: list[str]


class Totals(TypedDict):
    """Sums over what is shown."""

    tcp: int
    listener: int
    udp: int
    pair: int
    segments_in: int
    segments_out: int
    retransmits: int
    bytes_received: int
    bytes_acked: int


class Report(TypedDict):
    """What `connections --json` prints."""

    instance: str
    unanswered: list[int]  # workers that could not be asked
    totals: Totals
    connections: list[Connection]


def layout() -> dict[str, tuple[int, dict[str, int]]]:
    """Return size and field offsets of a record, to be compared with `lstack --abi`."""
    offsets, at = {}, 0
    for name, size in zip(FIELDS, [1] * 4 + [2] * 2 + [16] * 2 + [4] * 16 + [8] * 4, strict=True):
        offsets[name] = at
        at += size
    return {"gz_connection": (_RECORD.size, offsets)}


@cache
def _program(pid: int) -> str:
    try:
        return printable(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())
    except OSError:
        return ""  # it has ended, or is of another PID namespace


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@cache
def _address(packed: bytes, v6: int) -> str | None:
    if not any(packed if v6 else packed[12:]):
        return None
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def _slow_tcp(row: Connection) -> list[str]:
    """Say who lets a connection wait, as far as one look can tell."""
    why, idle = [], row["idle_ms"] or 0
    if row["rx_queued"] and (idle >= WAITED_MS or row["rx_queued"] >= row["rx_room"] // 2):
        why.append("the program does not accept it" if row["holder"] == "accept queue" else "the program does not read")
    if row["tx_queued"] and (row["send_window"] or 0) < (row["mss"] or 0):
        why.append("the peer does not read")
    elif row["tx_queued"] and idle >= WAITED_MS:
        why.append("the peer does not acknowledge")
    retransmits, sent = row["retransmits"] or 0, row["segments_out"] or 0
    if retransmits > LOSS_MAX * sent:
        why.append("segments are lost")
    return why


def _slow_other(row: Connection) -> list[str]:
    if row["kind"] == "listener":
        return ["the program does not accept"] if row["rx_queued"] > row["rx_room"] else []
    return ["the program does not read"] if row["rx_queued"] >= row["rx_room"] // 2 and row["rx_room"] else []


def _row(queue: int, record: tuple[Any, ...]) -> Connection:
    (
        kind, state, flags, v6, local_port, peer_port, local_address, peer, pid, uid, rx_queued, rx_room,
        tx_queued, tx_room, send_window, receive_window, congestion_window, slow_start_threshold, mss, rtt_us, rto_ms,
        segments_in, segments_out, retransmits, bytes_received, bytes_acked, age_ms, idle_ms,
    ) = record  # fmt: skip
    tcp, lost = kind == 1, flags & _ORPHAN and not pid
    row: Connection = {
        "kind": KINDS.get(kind, "tcp"),
        "state": STATES.get(state, "unknown")
        if tcp
        else "listen"
        if kind == 2
        else "established"
        if peer_port
        else "unconn",
        "queue": queue,
        "program": _program(pid) if pid else "",
        "pid": pid or None,
        "user": None if lost else _user(uid),
        "holder": "accept queue" if flags & _UNACCEPTED else "none" if flags & _ORPHAN else "program",
        "local_address": _address(local_address, v6),
        "local_port": local_port,
        "peer_address": _address(peer, v6) if peer_port else None,
        "peer_port": peer_port or None,
        "rx_queued": rx_queued,
        "rx_room": rx_room,
        "tx_queued": tx_queued,
        "tx_room": tx_room,
        "send_window": send_window if tcp else None,
        "receive_window": receive_window if tcp else None,
        "congestion_window": congestion_window if tcp else None,
        "slow_start_threshold": slow_start_threshold if tcp else None,
        "mss": mss if tcp else None,
        "rtt_us": rtt_us or None,
        "rto_ms": rto_ms if tcp else None,
        "segments_in": segments_in if tcp else None,
        "segments_out": segments_out if tcp else None,
        "retransmits": retransmits if tcp else None,
        "bytes_received": bytes_received if tcp else None,
        "bytes_acked": bytes_acked if tcp else None,
        "age_ms": None if lost else age_ms,
        "idle_ms": idle_ms if tcp else None,
        "slow": [],
    }
    if rx_queued or tx_queued or retransmits:
        row["slow"] = _slow_tcp(row) if tcp else _slow_other(row)
    return row


def _ask(run_dir: RunDir, queue: int) -> Iterator[Connection]:
    """Yield a worker's sockets, in slices as it gives them."""
    control, cursor = WorkerControl(run_dir, queue), 0
    try:
        while cursor != END:
            answer, records = control.ask(message(CONNECTIONS, cursor=cursor), AT_ONCE * _RECORD.size)
            for record in _RECORD.iter_unpack(records):
                yield _row(queue, record)
            cursor = answer.cursor
    finally:
        control.close()


def _pair_row(memory: bytes, end: pair_memory.End, members: set[int], now_ms: int) -> Connection:
    pid = pair_memory.holder(memory, end)
    if pid not in members:
        pid = None  # of another PID namespace, or not true
    v6 = int(end.family == socket.AF_INET6)
    row: Connection = {
        "kind": "pair",
        "state": end.state,
        "queue": None,
        "program": _program(pid) if pid else "",
        "pid": pid,
        "user": _owner(pid) if pid else None,
        "holder": "program" if end.held else "accept queue",
        "local_address": _address(end.local, v6),
        "local_port": end.local_port,
        "peer_address": _address(end.peer, v6),
        "peer_port": end.peer_port,
        "rx_queued": end.received,
        "rx_room": pair_memory.BLOCK,
        "tx_queued": end.sent,
        "tx_room": pair_memory.BLOCK,
        "send_window": None,
        "receive_window": None,
        "congestion_window": None,
        "slow_start_threshold": None,
        "mss": end.mss,
        "rtt_us": None,
        "rto_ms": None,
        "segments_in": None,
        "segments_out": None,
        "retransmits": None,
        "bytes_received": None,
        "bytes_acked": None,
        "age_ms": (now_ms - end.since_ms) & 0xFFFFFFFF,
        "idle_ms": None,
        "slow": [],
    }
    row["slow"] = _slow_other(row)
    return row


@cache
def _owner(pid: int) -> str | None:
    try:
        return _user(os.stat(f"/proc/{pid}").st_uid)
    except OSError:
        return None


def _pair_rows(pids: Iterable[int]) -> Iterator[Connection]:
    now_ms = time.monotonic_ns() // 1_000_000
    for memory, members in pairs(pids):
        for end in pair_memory.ends(memory):
            yield _pair_row(memory, end, members, now_ms)


def read(run_dir: RunDir, queues: Sequence[int], pids: Iterable[int]) -> tuple[list[Connection], list[int]]:
    """Return the sockets of workers and of pairs among these processes, and which workers could not be asked.

    GazelledError if none of the workers could.
    """
    found: list[Connection] = []
    unanswered: list[int] = []
    for queue in queues:
        try:
            found += _ask(run_dir, queue)
        except GazelledError:
            unanswered.append(queue)
            if len(unanswered) == len(queues):
                raise
    found += _pair_rows(pids)
    return found, unanswered


def matches(row: Connection, ports: Sequence[int], programs: Sequence[str], states: Sequence[str], slow: bool) -> bool:
    """Tell whether a row is one of those wanted; what is empty does not matter."""
    return (
        (not ports or row["local_port"] in ports or row["peer_port"] in ports)
        and (not programs or row["program"] in programs or str(row["pid"]) in programs)
        and (not states or row["state"] in states)
        and (not slow or bool(row["slow"]))
    )


def ordered(rows: Iterable[Connection], key: str | None) -> list[Connection]:
    """Return the rows by a key, the largest first; without one listeners first, then by port and peer."""
    if key is not None:
        return sorted(rows, key=lambda row: row[key] or 0, reverse=True)  # type: ignore[literal-required]
    order = {"listener": 0, "udp": 1, "tcp": 2, "pair": 3}
    return sorted(
        rows,
        key=lambda row: (order[row["kind"]], row["local_port"], row["peer_address"] or "", row["peer_port"] or 0),
    )


def totals(rows: Iterable[Connection]) -> Totals:
    """Return the sums."""
    sums: Totals = {
        "tcp": 0, "listener": 0, "udp": 0, "pair": 0, "segments_in": 0, "segments_out": 0, "retransmits": 0,
        "bytes_received": 0, "bytes_acked": 0,
    }  # fmt: skip
    for row in rows:
        sums[row["kind"]] += 1
        if row["kind"] == "tcp":
            sums["segments_in"] += row["segments_in"] or 0
            sums["segments_out"] += row["segments_out"] or 0
            sums["retransmits"] += row["retransmits"] or 0
            sums["bytes_received"] += row["bytes_received"] or 0
            sums["bytes_acked"] += row["bytes_acked"] or 0
    return sums
