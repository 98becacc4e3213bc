# SPDX-License-Identifier: MulanPSL-2.0
"""How many mbufs a worker's mempool has, and how much memory a worker needs."""

from __future__ import annotations

from gazelled.configuration.settings import Config

DATA_BYTES = 2048  # of an mbuf, unless a frame is larger where the port cannot chain mbufs
FRAME_BYTES = 26  # of a frame besides its MTU: Ethernet header, two VLAN tags, checksum
MBUF_OVERHEAD = 512  # mempool header, rte_mbuf, our private area, headroom, rounding
CACHE_MBUFS = 512  # what can rest in a pool's cache at either end
WORKER_BYTES = 48 << 20  # everything of a worker that is no mbuf: DPDK, lwIP, tables


def mbuf_bytes(driver: str, mtu: int) -> int:
    """Return what one mbuf takes. A tap chains mbufs for frames of any size; DPDK's devices get a frame in one mbuf."""
    frame = mtu + FRAME_BYTES if driver not in ("tap", "none") else 0
    return MBUF_OVERHEAD + max(DATA_BYTES, frame)


def formula_mbufs(config: Config, num_queue: int) -> int:
    """Return the seed's share of a worker: the process's total over its queues."""
    return config.stack.tcp_conn_count * config.stack.mbuf_count_per_conn // num_queue


def held_mbufs(config: Config) -> int:
    """Return how many mbufs a worker's rings, one burst and the pool's cache can keep from the pool's other users."""
    return config.port.rx_queue_size + config.port.tx_queue_size + config.stack.nic_read_number + CACHE_MBUFS


def pool_mbufs(config: Config, num_queue: int) -> int:
    """Return the size of a worker's mempool."""
    return max(formula_mbufs(config, num_queue), held_mbufs(config))
