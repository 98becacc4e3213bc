# SPDX-License-Identifier: MulanPSL-2.0
"""sockperf: one 64-byte message to and fro over TCP. Its latencies are half of a round trip."""

from __future__ import annotations

import re

from kit.lab import Process

from bench.lab import BenchError
from bench.programs.program import Load, Outcome, Program
from bench.side import Side, Site

PORT = 11111
_MOST = ("--mps=10000000",)  # as fast as it is answered: the default has room for fewer messages than come
_PERCENTILE = re.compile(r"percentile (\d+\.\d+) =\s+([\d.]+)")
_COUNT = re.compile(r"ReceivedMessages=(\d+)")


def parse(text: str) -> Outcome:
    """Read the summary of a ping-pong; BenchError if it is not there."""
    percentiles = {f"p{float(name):g}": float(value) for name, value in _PERCENTILE.findall(text)}
    counts = [int(count) for count in _COUNT.findall(text)]
    if "p50" not in percentiles or not counts:
        raise BenchError(f"sockperf printed no percentiles: {text[-200:]!r}")
    extra = {"p99_us": percentiles["p99"], "p999_us": percentiles["p99.9"]}
    return Outcome(percentiles["p50"], counts[0], extra)


def _run(side: Side, cpu: int, _: int) -> Outcome:
    return parse(
        side.call(
            ["sockperf", "ping-pong", "--tcp", "-i", side.address, "-p", str(PORT), "-m", "64", "-t", "1", *_MOST], cpu
        )
    )


class Sockperf(Program):
    """64 bytes, one at a time, for a second."""

    name = "sockperf"
    needs = ("sockperf",)

    def loads(self) -> list[Load]:
        """Return the one load."""
        return [Load("pingpong-64", "64 B ping-pong p50", "us", _run, more_is_better=False, work_name="M trips")]

    def serve(self, site: Site) -> Process:
        """Start its server."""
        return site.spawn(["sockperf", "server", "--tcp", "-i", site.address, "-p", str(PORT)])

    def answers(self, side: Side) -> bool:
        """Connect: a ping-pong of sockperf's takes three seconds, however short."""
        connect = ["timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{side.address}/{PORT}"]
        try:
            side.call(connect, side.cpus("spread")[1], 5)
            return True
        except BenchError:
            return False
