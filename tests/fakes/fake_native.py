# SPDX-License-Identifier: MulanPSL-2.0
"""A native build directory with a worker that opens no port and a shim that does nothing, compiled once per session."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]

T = TypeVar("T")


@cache
def fake_native() -> Path:
    """Return the directory, for $GAZELLED_NATIVE."""
    native = Path(tempfile.mkdtemp(prefix="gazelled-fake-native-"))
    atexit.register(remove_fake_native)  # not in the processes of xdist, which end without: see conftest.py
    (native / "lstack").mkdir()
    (native / "shim").mkdir()
    lstack = REPOSITORY / "native/lstack"
    worker = [REPOSITORY / "tests/fakes/fake_lstack.c", lstack / "shared/abi_dump.c", lstack / "queue_lock.c"]
    compile_c(worker, native / "lstack/lstack", "-I", str(REPOSITORY / "native/include"), "-I", str(lstack))
    empty = native / "shim/empty.c"
    empty.write_text("extern int nothing;\nint nothing;\n")
    compile_c([empty], native / "shim/liblstack.so", "-shared", "-fPIC")
    return native


def remove_fake_native() -> None:
    """Remove the directory, if there is one."""
    if fake_native.cache_info().currsize:
        shutil.rmtree(fake_native(), ignore_errors=True)
        fake_native.cache_clear()


def compile_c(sources: list[Path], output: Path, *options: str) -> None:
    """Compile C."""
    command = [
        "cc",
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O1",
        "-Wall",
        "-Werror",
        *options,
        *map(str, sources),
        "-o",
        str(output),
    ]
    subprocess.run(command, check=True, timeout=60)
