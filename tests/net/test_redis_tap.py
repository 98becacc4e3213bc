# SPDX-License-Identifier: MulanPSL-2.0
"""An unmodified redis on the stack, its clients on the kernel's side of the embedded tap.

               namespace S
redis-benchmark            redis-server
      |                         |  liblstack
kernel 10.91.0.1        stack 10.91.0.2 (1 or 2 workers)
      |                         |
      +------ tap, 1 or 2 queues+
"""

from __future__ import annotations

import pytest
from kit.instance import accelerated, started
from kit.lab import Kit, full
from kit.redis import load, serve_fifty_clients, start_redis

REQUESTS = 200_000


@pytest.mark.parametrize("workers", [1, 2])
def test_redis_serves_fifty_clients_without_an_error(kit: Kit, workers: int) -> None:
    serve_fifty_clients(started(kit, "tap", workers), REQUESTS, workers)


def test_pipelined_requests_and_large_values_arrive_whole(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    start_redis(instance)
    load(instance, REQUESTS, "-P", "16")
    load(instance, 4_000 if full() else 1_000, "-d", "200000", clients=10)
    accelerated(instance)
