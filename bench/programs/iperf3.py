# SPDX-License-Identifier: MulanPSL-2.0
"""iperf3: bulk data by one stream and by eight, into the server and out of it."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from kit.lab import Process

from bench.lab import BenchError
from bench.programs.program import GIGABYTE, Load, Outcome, Program
from bench.side import Side, Site

PORT = 5201
_BUSY_S = 3.0  # the server takes one test at a time and needs a moment between two


def parse(text: str) -> Outcome:
    """Read iperf3's JSON: what the receiver got. BenchError if the test failed."""
    try:
        said: dict[str, Any] = json.loads(text)
    except ValueError:
        raise BenchError(f"iperf3 printed no JSON: {text[:200]!r}") from None
    if "error" in said:
        raise BenchError(f"iperf3: {said['error']}")
    received = said["end"]["sum_received"]
    return Outcome(received["bits_per_second"] / 1e9, received["bytes"])


def _run(streams: int, out: bool, side: Side, cpu: int, work: int) -> Outcome:
    words = ["iperf3", "-c", side.address, "-p", str(PORT), "-n", str(work), "-P", str(streams), "-J"]
    if out:
        words.append("-R")
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            return parse(side.call(words, cpu))
        except BenchError as error:
            if "busy running a test" not in str(error) or time.monotonic() > deadline:
                raise


class Iperf3(Program):
    """As many bytes as take about half a second."""

    name = "iperf3"
    needs = ("iperf3",)

    def loads(self) -> list[Load]:
        """Return one stream and eight, both ways. "in" is towards the server, so into the stack."""
        return [self._load(streams, way) for streams in (1, 8) for way in ("in", "out")]

    @staticmethod
    def _load(streams: int, way: str) -> Load:
        return Load(
            f"iperf3-{streams}-{way}",
            f"iperf3, {streams} stream{'s' * (streams > 1)} {way}",
            "Gbit/s",
            partial(_run, streams, way == "out"),
            work_unit=GIGABYTE,
            work_name="GB",
            rate=lambda outcome: outcome.value * 1e9 / 8,
            first=20_000_000,
            most=20_000_000_000,
        )

    def serve(self, site: Site) -> Process:
        """Start its server."""
        return site.spawn(["iperf3", "-s", "-B", site.address, "-p", str(PORT), "--forceflush"])

    def answers(self, side: Side) -> bool:
        """Send a little."""
        words = ["iperf3", "-c", side.address, "-p", str(PORT), "-n", "100K", "-J"]
        try:
            return parse(side.call(words, side.cpus("spread")[1], 8)).work > 0
        except BenchError:
            return False
