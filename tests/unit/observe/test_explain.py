# SPDX-License-Identifier: MulanPSL-2.0
"""What `run --explain` says, and that a program run by it is as one that is run without."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys

import pytest

from gazelled.launch.stand_in import run_to_end
from gazelled.observe import explain
from gazelled.observe.explain import Explanation, explain_lines

SHELL = "/bin/sh"


def test_each_path_has_its_number_and_the_kernels_a_reason() -> None:
    assert list(
        explain_lines("redis-server", "10.0.0.2", {"accepted": 50, "listener": 2}, {"address": 1, "client": 7})
    ) == [
        "gazelled: sockets of redis-server and all it has started:",
        "  52  on the stack",
        "  50    TCP connections accepted",
        "   2    TCP listeners",
        "   8  on the kernel",
        "   1    at an address that is not the stack's; let the program use 10.0.0.2, or 0.0.0.0",
        "   7    accepted from plain clients on loopback or at the host's own addresses",
    ]


def test_a_program_without_sockets() -> None:
    assert list(explain_lines("true", "10.0.0.2", {}, {}))[1:] == ["  none that TCP or UDP could use"]


def test_a_refusal_is_told_first_and_moves_no_cursor() -> None:
    with Explanation() as explanation:
        with open(explanation.path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            raw = explain._Explain.from_buffer(memory)
            raw.why = b"no\x1b[2J room"
            assert explanation.refusal() == "", "somebody still writes it"
            raw.refused = 2
            del raw
        assert explanation.refusal() == "no[2J room"
    said = list(explain_lines("true", "10.0.0.2", {}, {}, "no room"))
    assert said[0] == "gazelled: a worker refused true or what it has started: no room"


def test_what_others_count_by_its_path_is_read() -> None:
    with Explanation() as explanation:
        assert explanation.counts() == ({}, {})
        with open(explanation.path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            raw = explain._Explain.from_buffer(memory)
            raw.accelerated[explain.KINDS.index("datagram")] = 3
            raw.kernel[1] = 4
            del raw
        assert explanation.counts() == ({"datagram": 3}, {"address": 4})
    assert ctypes.sizeof(explain._Explain) == 152


@pytest.mark.parametrize(("script", "status"), [("exit 42", 42), ("kill -TERM $$", 128 + signal.SIGTERM)])
def test_the_status_is_the_programs(script: str, status: int) -> None:
    assert run_to_end(SHELL, ["sh", "-c", script], os.environ) == status


def test_signals_are_passed_on_and_those_it_blocks_are_as_before() -> None:
    ours = "import os, sys; from gazelled.launch.stand_in import run_to_end; " + (
        "sys.exit(run_to_end('/bin/sh', ['sh', '-c', sys.argv[1]], os.environ))"
    )
    theirs = "trap 'exit 5' TERM; grep -e SigBlk -e SigIgn /proc/self/status; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen([sys.executable, "-c", ours, theirs], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 5
    process.stdout.close()
    plain = subprocess.run([SHELL, "-c", "grep -e SigBlk -e SigIgn /proc/self/status"], capture_output=True, text=True)
    assert said == [*plain.stdout.splitlines(keepends=True), "ready\n"]
