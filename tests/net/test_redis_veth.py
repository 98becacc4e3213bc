# SPDX-License-Identifier: MulanPSL-2.0
"""An unmodified redis on the stack, on one end of a veth by AF_XDP; its clients on the other end, in a namespace.

        namespace S                              namespace C
  redis-server                               redis-benchmark
       |  liblstack                                 |
  stack 10.92.0.2 (1 or 2 workers)           kernel 10.92.0.1
       |                                            |
  gzs, a queue per worker ------ veth ------------ gzc

A veth has no RSS: the queue a packet comes by follows the sender's CPU, not the flow. Two workers serve a connection
correctly only if they hand packets on to the worker that has it.
"""

from __future__ import annotations

import pytest
from kit.instance import started
from kit.lab import Kit
from kit.redis import serve_fifty_clients

REQUESTS = 200_000


@pytest.mark.parametrize("workers", [1, 2])
def test_redis_serves_fifty_clients_without_an_error(kit: Kit, workers: int) -> None:
    serve_fifty_clients(started(kit, "veth", workers), REQUESTS, workers)
