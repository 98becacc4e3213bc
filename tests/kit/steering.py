# SPDX-License-Identifier: MulanPSL-2.0
"""Which worker a connection from outside belongs to: the RSS hash as a NIC computes it, and the plan's table."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from kit.instance import Instance


def toeplitz(key: bytes, data: bytes) -> int:
    """Return the RSS hash: for each bit that is set, the 32 bits of the key from there on."""
    bits, whole = len(key) * 8, int.from_bytes(key, "big")
    result = 0
    for position in range(len(data) * 8):
        if data[position // 8] >> (7 - position % 8) & 1:
            result ^= whole >> (bits - 32 - position) & 0xFFFFFFFF
    return result


def owner(instance: Instance, plan: dict[str, Any], peer_port: int, port: int) -> int:
    """Return the queue_id of the worker that has a connection from the peer's port to the stack's."""
    flow = IPv4Address(instance.peer).packed + IPv4Address(instance.address).packed
    flow += peer_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    reta = plan["reta"]
    return int(reta[toeplitz(bytes.fromhex(plan["rss_key"]), flow) % len(reta)])
