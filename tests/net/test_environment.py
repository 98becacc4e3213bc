# SPDX-License-Identifier: MulanPSL-2.0
"""The library finds the stack whatever a program does to its environment, its limits and its standard streams.

      namespace S
program -- liblstack -- stack without a port, 1 worker
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.instance import Instance, on_nothing
from kit.lab import Kit
from kit.waiting import until

ROOM = 512 << 20  # bytes of addresses, as by `ulimit -v`: Python, one worker, one pair
# The program clears its environment, and has none of the library's after an exec. Each time it serves itself once.
CLEARED = """
import os, socket, sys
def served(listener):
    client = socket.create_connection(listener.getsockname())
    listener.accept()[0].send(b"served")
    return client.recv(10).decode()
if len(sys.argv) == 1:
    os.environ.clear()
    listener = socket.create_server(("127.0.0.1", 0))
    print("cleared:", served(listener), flush=True)
    listener.set_inheritable(True)
    os.execve(sys.executable, [sys.executable, "-c", PROGRAM, str(listener.fileno())], {})
print("executed:", served(socket.socket(fileno=int(sys.argv[1]))), flush=True)
"""
CLEARED = f"PROGRAM = {CLEARED!r}\nexec(PROGRAM)"
# Speaks to a program of this host, fills the memory the two share, and is killed.
FILLER = """
import signal, socket, sys
connections = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(20)]
for each in connections:
    each.sendall(b"x" * 200000)
print("full", flush=True)
signal.pause()
"""
# Accepts, and lets go of a connection when its peer has.
ACCEPTER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=64)
print("ready", flush=True)
open_ones = [listener.accept()[0] for _ in range(20)]
for each in open_ones:
    while each.recv(65536):
        pass
    each.close()
print("closed", flush=True)
listener.accept()
"""
# With the flags of what it shares: a core leaves out what has "dd".
SHARING = """
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=200)
kept = []
for _ in range(100):
    client = socket.create_connection(listener.getsockname())
    client.send(b"x")
    kept += [client, listener.accept()[0]]
    kept[-1].recv(1)
name = ""
for line in open("/proc/self/smaps"):
    if "-" in line.split()[0]:
        name = line.split()[-1] if "memfd:gazelle" not in line else "shared"
    if line.startswith("VmFlags:") and name == "shared":
        print("left out" if "dd" in line.split() else "dumped")
"""


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    kit = Kit(tmp_path_factory.mktemp("environment"))
    try:
        instance = on_nothing(kit, 1)
        instance.start()
        yield instance
        instance.stop()
    finally:
        kit.close()


def shell(instance: Instance, script: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell outside the stack, in which $RUN starts a program on it."""
    run = " ".join(instance.argv("run"))
    return instance.home.try_run("sh", "-c", f"cd {where}; RUN='{run}'; {script}", timeout=30)


def test_a_program_that_clears_its_environment(instance: Instance) -> None:
    done = instance.home.try_run(*instance.argv("run", "--explain", "--", sys.executable, "-c", CLEARED), timeout=30)
    assert "cleared: served" in done.stdout, done.stderr
    assert "executed: served" in done.stdout, done.stderr
    assert "0  on the kernel" in done.stderr
    assert "TCP connections with attached programs of this host" in done.stderr


def test_standard_streams_that_are_closed(instance: Instance, tmp_path: Path) -> None:
    shell(instance, "$RUN -- sh -c 'echo out > out' >&-; $RUN -- sh -c 'echo err > err' 2>&-", tmp_path)
    assert [(tmp_path / name).read_text() for name in ("out", "err")] == ["out\n", "err\n"]


def test_a_program_of_this_directory(instance: Instance, tmp_path: Path) -> None:
    program = tmp_path / "ls"
    program.write_text('#!/bin/sh\necho "$0, the one of this directory"\n')
    program.chmod(0o755)
    for script in ("$RUN -- ./ls", "$RUN --explain -- ./ls", "PATH=.:$PATH; $RUN --explain -- ls"):
        assert shell(instance, script, tmp_path).stdout == "./ls, the one of this directory\n", script


def test_a_program_of_another_loader_is_not_given_the_library(instance: Instance, tmp_path: Path) -> None:
    original = Path(shutil.which("env") or "").read_bytes()
    loader = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}[platform.machine()]
    other = Path(f"/tmp/ld-musl-{os.getpid()}.so")  # no longer than what it stands for
    other.symlink_to(loader)
    try:
        (tmp_path / "ours").write_bytes(original)
        (tmp_path / "theirs").write_bytes(
            original.replace(loader.encode() + b"\0", str(other).encode().ljust(len(loader) + 1, b"\0"))
        )
        for name in ("ours", "theirs"):
            (tmp_path / name).chmod(0o755)
        done = shell(instance, "$RUN -- sh -c './ours; echo then; ./theirs'", tmp_path)
    finally:
        other.unlink()
    ours, theirs = done.stdout.split("then\n")
    assert "liblstack.so" in ours
    assert "liblstack.so" not in theirs
    assert "GAZELLED_GROUP" in theirs


def test_programs_with_little_room_for_addresses_meet(instance: Instance) -> None:
    limited = ["prlimit", f"--as={ROOM}", sys.executable, "-c"]
    server = instance.spawn(*limited, ACCEPTER, instance.address, "7100")
    server.said("ready")
    client = instance.spawn(*limited, FILLER, instance.address, "7100")
    client.said("full")
    maps = Path(f"/proc/{server.pid}/maps")
    assert "gazelle-pair" in maps.read_text()
    client.kill()
    server.said("closed")
    until(lambda: "gazelle-pair" not in maps.read_text(), "the server to give back what the two shared", 10)
    server.kill()


def test_a_core_has_nothing_of_the_memory_that_is_shared(instance: Instance) -> None:
    done = instance.home.run(*instance.attached(sys.executable, "-c", SHARING))
    assert set(done.split("\n")) == {"left out", ""}
    assert len(done.split("\n")) > 4


def test_the_address_of_the_stack_is_one_of_the_hosts(instance: Instance) -> None:
    assert instance.address in instance.home.run(*instance.attached("hostname", "-I")).split()
    assert instance.address not in instance.home.run("hostname", "-I").split()
