# SPDX-License-Identifier: MulanPSL-2.0
"""README's and the tutorial's commands, one after the other as a reader types them, in a namespace with an eth0.

the commands -- their namespace: eth0 (10.94.0.2) -- veth -- another namespace
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from kit.lab import REPOSITORY, Kit
from kit.namespaces import Namespace

README = REPOSITORY / "README.md"
TUTORIAL = REPOSITORY / "docs/tutorial/redis.md"
WARNED = ("gazelled check",)  # may end with 1: this machine may have few CPUs


def blocks(page: Path, fence: str) -> list[list[str]]:
    """Return the commands of each block; comments behind two blanks are the reader's."""
    found = re.findall(rf"^{fence}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = ([re.sub(r"\s{2,}#.*| # .*$", "", line).strip() for line in block.splitlines()] for block in found)
    return [[line for line in block if re.match(r"(\S*/)?(gazelled|redis-\w+|make) ", line)] for block in lines]


class Reader:
    """Who types the commands, with a `gazelled` on PATH that is this checkout's."""

    def __init__(self, kit: Kit, home: Namespace) -> None:
        self.kit, self.home = kit, home
        command = kit.directory / "bin" / "gazelled"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m gazelled "$@"\n')
        command.chmod(0o755)
        self.run_root = Path("/run") / kit.prefix  # workers, who are another user, must reach it
        kit.later(lambda: shutil.rmtree(self.run_root, ignore_errors=True))
        self.env = {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "GAZELLED_RUN_ROOT": str(self.run_root),
            "GAZELLED_CONFIG": "/dev/null",
        }
        kit.later(self.leave)

    def types(self, line: str) -> str:
        """Run a line; it must end well."""
        line = line.replace(".venv/bin/gazelled", "gazelled").replace("/tmp/", f"{self.kit.directory}/")
        done = self.home.try_run("bash", "-c", line, timeout=60, env=self.env)
        fine = (0, 1) if line.startswith(WARNED) else (0,)
        assert done.returncode in fine, f"{line}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def leave(self) -> None:
        """End what a command has left running in the namespace, and the instance."""
        self.home.try_run("bash", "-c", "gazelled stop", timeout=60, env=self.env)
        pids = subprocess.run(["ip", "netns", "pids", self.home.name], capture_output=True, text=True, check=False)
        for pid in pids.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def reader(kit: Kit) -> Reader:
    home, other = kit.namespace("s"), kit.namespace("c")
    home.connect("eth0", other, "gzc")
    home.run("ip", "link", "set", "eth0", "up")
    home.run("ip", "address", "add", "10.94.0.2/24", "dev", "eth0")
    return Reader(kit, home)


def test_the_commands_of_the_readme_work(reader: Reader) -> None:
    beside, with_make, _, kept = blocks(README, "```")[:4]
    assert [line.split()[:2] for line in with_make] == [["make", "run"], ["make", "test"]]
    reader.types("gazelled start")  # as `make run KEEP=1` leaves it
    said = [reader.types(line) for line in kept if not line.startswith("make ")]
    assert "on the stack" in said[2]
    assert len(said) == 6
    reader.types("gazelled stop")
    assert [line.split()[1] for line in beside] == ["start", "run", "stop"]
    for line in beside:
        reader.types(line)


def test_the_commands_of_the_tutorial_work(reader: Reader) -> None:
    said = {line: reader.types(line) for block in blocks(TUTORIAL, "```sh") for line in block}
    assert len(said) >= 15
    assert "path: stack" in said["gazelled selftest"]
    assert "redis-server" in said["gazelled status"]
    assert "gazellelstack00" in said["gazelled top --once"]
    assert not reader.run_root.exists()
