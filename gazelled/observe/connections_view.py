# SPDX-License-Identifier: MulanPSL-2.0
"""The table that `gazelled connections` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from gazelled.observe.connections import Connection, Totals

_HEAD = (
    f"{'kind':<9}{'state':<12}{'queue':>5} {'rx':>9} {'tx':>9}  {'local':<24} {'peer':<24} {'program':<20}"
    f"{'rtt':>8} {'cwnd':>8} {'resent':>6} {'age':>7} {'idle':>7}"
)


@cache
def _place(address: str | None, port: int | None) -> str:
    if port is None:
        return "-"
    return f"{'*' if address is None else f'[{address}]' if ':' in address else address}:{port}"


@cache
def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    for unit in ("", "K", "M", "G"):
        if count < 10_000:
            return f"{count}{unit}"
        count //= 1024
    return f"{count}T"


@cache
def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    if not milliseconds:
        return "0"
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f}us"
    for most, divisor, unit in (
        (1000, 1, "ms"),
        (120_000, 1000, "s"),
        (7_200_000, 60_000, "m"),
        (172_800_000, 3_600_000, "h"),
    ):
        if milliseconds < most:
            value = milliseconds / divisor
            return f"{value:.1f}{unit}" if value < 10 and unit == "ms" else f"{value:.0f}{unit}"
    return f"{milliseconds / 86_400_000:.0f}d"


def _line(row: Connection) -> str:
    program = f"{row['program']}({row['pid']})" if row["pid"] else "-"
    if row["holder"] != "program":
        program = f"{row['holder']}" if row["holder"] == "accept queue" else "-"
    rtt = None if row["rtt_us"] is None else row["rtt_us"] / 1000
    line = (
        f"{row['kind']:<9}{row['state']:<12}{'-' if row['queue'] is None else row['queue']:>5}"
        f" {_bytes(row['rx_queued']):>9} {_bytes(row['tx_queued']):>9}"
        f"  {_place(row['local_address'], row['local_port']):<24} {_place(row['peer_address'], row['peer_port']):<24}"
        f" {program:<20}{_time(rtt):>8} {_bytes(row['congestion_window']):>8}"
        f" {'-' if row['retransmits'] is None else row['retransmits']:>6}"
        f" {_time(row['age_ms']):>7} {_time(row['idle_ms']):>7}"
    )
    return f"{line}  {'; '.join(row['slow'])}" if row["slow"] else line


def lines(rows: Sequence[Connection], sums: Totals, unanswered: Sequence[int]) -> Iterator[str]:
    """Yield the table, and a summary as its last line."""
    yield _HEAD
    for row in rows:
        yield _line(row)
    slow = sum(bool(row["slow"]) for row in rows)
    yield (
        f"{sums['tcp']} TCP, {sums['listener']} listeners, {sums['udp']} UDP, {sums['pair']} ends of same-host pairs"
        + (f"; {slow} wait for somebody" if slow else "")
        + "".join(f"; worker {queue} could not be asked" for queue in unanswered)
    )
