# SPDX-License-Identifier: MulanPSL-2.0
"""A run directory on a small file system of its own, and how to leave no room on it."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from gazelled.instance.worker_process import find_workers
from kit.instance import Instance, on_tap
from kit.lab import Kit


def on_a_small_file_system(kit: Kit, kib: int) -> Instance:
    """Make an instance whose run directory is a tmpfs of this size."""
    instance = on_tap(kit, 2)
    instance.run_dir.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=755", "gazelled-test", str(instance.run_dir)]
    subprocess.run(mount, check=True, timeout=10)
    kit.later(lambda: subprocess.run(["umount", "-l", str(instance.run_dir)], check=True, timeout=10))
    return instance


def fill(instance: Instance) -> Path:
    """Take what is left of the file system, to the last byte."""
    path = instance.run_dir / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    assert os.statvfs(instance.run_dir).f_bfree == 0
    return path


def stopped(instance: Instance) -> None:
    """Stop it; all but the mount point is gone."""
    done = instance.call("stop")
    assert done.returncode == 0, done.stderr
    assert list(instance.run_dir.iterdir()) == []
    assert find_workers(instance.run_dir) == []
    assert instance.device not in instance.home.run("ip", "link")
