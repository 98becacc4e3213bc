# SPDX-License-Identifier: MulanPSL-2.0
"""The bars: what each row must reach and where it should go. A row is a path and a load."""

from __future__ import annotations

from bench.stats import Kind, Target

SAME_HOST, TAP, UPLINK, BESIDE = "same host", "tap", "uplink", "kernel beside an uplink"
AF_XDP, LIFE = "af_xdp", "scale and life"
PATHS = (SAME_HOST, TAP, UPLINK, BESIDE, AF_XDP, LIFE)
BURSTS = (1_000, 10_000, 40_000)  # connects at once


def _ratio(must: float, aim: float, no_more_cpu: bool = False, against: str = "") -> Target:
    return Target(Kind.RATIO, must, aim, "", no_more_cpu, against)


def _fraction(must: float, aim: float, against: str = "") -> Target:
    return Target(Kind.FRACTION, 1 / must, 1 / aim, "", False, against)


def _at_least(must: float, aim: float, unit: str) -> Target:
    return Target(Kind.AT_LEAST, must, aim, unit)


def _at_most(must: float, aim: float, unit: str) -> Target:
    return Target(Kind.AT_MOST, must, aim, unit)


TARGETS: dict[tuple[str, str], Target] = {
    (SAME_HOST, "redis-get-c50"): _ratio(8, 14),
    (SAME_HOST, "redis-set-c50"): _ratio(7, 12),
    (SAME_HOST, "redis-get-c1"): _ratio(8, 18, against="one core"),
    (SAME_HOST, "redis-get-c50-p16"): _ratio(1.7, 2.2),
    (SAME_HOST, "redis-get-c50-onecore"): _ratio(8, 18, against="one core"),
    (SAME_HOST, "pingpong-64"): _fraction(10, 30, against="one core"),
    (SAME_HOST, "iperf3-1-in"): _ratio(2, 4),
    (SAME_HOST, "wrk-new"): _ratio(2, 4),
    (TAP, "redis-get-c50"): _ratio(1.15, 1.5, no_more_cpu=True),
    (TAP, "redis-get-c50-p16"): _ratio(1.2, 1.6),
    (TAP, "redis-get-c1"): _ratio(0.5, 0.85, against="one core"),
    (TAP, "iperf3-1-in"): _at_least(8, 16, "Gbit/s"),
    (TAP, "iperf3-1-out"): _at_least(5, 11, "Gbit/s"),
    (UPLINK, "redis-get-c50"): _ratio(1.2, 1.4, no_more_cpu=True),
    (UPLINK, "redis-get-c50-p16"): _ratio(1.0, 1.2),
    (UPLINK, "wrk-large"): _ratio(1.2, 1.8),
    (UPLINK, "iperf3-1-in"): _ratio(0.8, 1.0),
    (UPLINK, "iperf3-1-out"): _ratio(0.5, 0.8),
    (BESIDE, "redis-get-c50"): _ratio(0.9, 1.0),
    (BESIDE, "iperf3-1-in"): _ratio(0.9, 1.0),
    (AF_XDP, "redis-get-c50"): _ratio(1.0, 1.25),
    (LIFE, "scale-busy"): _at_least(90, 98, "%"),
    (LIFE, "scale-memory"): _at_most(6, 2, "KB"),
    (LIFE, "idle-cpu"): _at_most(1, 0.2, "%"),
    (LIFE, "first-packet"): _at_most(150, 50, "us"),
    (LIFE, "start"): _at_most(2, 0.7, "s"),
    (LIFE, "worker-death"): _at_most(500, 150, "ms"),
    (LIFE, "crowd"): _ratio(0.8, 1.0),
    **{(LIFE, f"burst-{connects}"): _fraction(0.5, 1) for connects in BURSTS},
}
