# SPDX-License-Identifier: MulanPSL-2.0
"""memcached under the bench's own client: get of a 64-byte value, fifty connections, one request each at a time."""

from __future__ import annotations

import json
from functools import partial

from kit.lab import Process

from bench.lab import BenchError
from bench.programs.program import Load, Outcome, Program
from bench.side import Side, Site

PORT = 11311
_VALUE = "x" * 64
_SET = f"set key 0 0 {len(_VALUE)}\r\n{_VALUE}\r\n"
_GET = "get key\r\n"
_ANSWER = len(f"VALUE key 0 {len(_VALUE)}\r\n{_VALUE}\r\nEND\r\n")


def client(side: Side, connections: int, request: str, response: int) -> list[str]:
    """Return the command line of the bench's own client."""
    return [side.site.lab.compiled("load"), "--to", side.address, "--port", str(PORT), "--connections",
            str(connections), "--request", request, "--response", str(response)]  # fmt: skip


def parse(text: str) -> Outcome:
    """Read the client's last line."""
    try:
        said: dict[str, float] = json.loads(text.strip().splitlines()[-1])
        return Outcome(said["rate"], said["requests"], {"p50_us": said["p50_us"], "p99_us": said["p99_us"]})
    except (ValueError, IndexError, KeyError):
        raise BenchError(f"load printed no figures: {text[-200:]!r}") from None


def _run(connections: int, side: Side, cpu: int, work: int) -> Outcome:
    return parse(side.call(client(side, connections, _GET, _ANSWER), cpu, text=f"count {work}\n"))


class Memcached(Program):
    """One thread, for a client of one thread."""

    name = "memcached"
    needs = ("memcached", "cc")

    def loads(self) -> list[Load]:
        """Return the one load."""
        return [Load("memcached-get-c50", "memcached get, 50 connections", "req/s", partial(_run, 50), first=2000,
                     most=2_000_000)]  # fmt: skip

    def serve(self, site: Site) -> Process:
        """Start it without UDP."""
        return site.spawn(["memcached", "-u", "root", "-l", site.address, "-p", str(PORT), "-U", "0", "-t", "1"])

    def answers(self, side: Side) -> bool:
        """Store the value."""
        try:
            cpu = side.cpus("spread")[1]
            said = side.call(client(side, 1, _SET, len("STORED\r\n")), cpu, 5, "count 1\n")
            return parse(said).work == 1
        except BenchError:
            return False
