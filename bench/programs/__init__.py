# SPDX-License-Identifier: MulanPSL-2.0
"""The programs that are measured, in the order of a run."""

from __future__ import annotations

from bench.programs.iperf3 import Iperf3
from bench.programs.memcached import Memcached
from bench.programs.nginx import Nginx
from bench.programs.program import Load, Outcome, Program, Server
from bench.programs.redis import Redis
from bench.programs.sockperf import Sockperf

PROGRAMS: tuple[type[Program], ...] = (Redis, Sockperf, Iperf3, Nginx, Memcached)

__all__ = ["PROGRAMS", "Load", "Outcome", "Program", "Server"]
