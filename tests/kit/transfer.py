# SPDX-License-Identifier: MulanPSL-2.0
"""A file and its digest, and who serves and fetches it by HTTP."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

from kit.instance import Instance
from kit.lab import REPOSITORY, Process

SERVER = REPOSITORY / "tests/net/http_files.py"
PORT = 8080
MIB = 1 << 20


def make_file(directory: Path, mebibytes: int) -> tuple[Path, str]:
    """Write a file whose every block differs; return it and its SHA-256."""
    path, digest = directory / "file", hashlib.sha256()
    block = random.Random(7).randbytes(MIB - 8)
    with path.open("wb") as file:
        for number in range(mebibytes):
            piece = number.to_bytes(8, "big") + block
            digest.update(piece)
            file.write(piece)
    return path, digest.hexdigest()


def serve_on_stack(instance: Instance) -> Process:
    """Serve the test's directory by HTTP on the stack."""
    server = instance.spawn(sys.executable, str(SERVER), instance.address, str(PORT), str(instance.kit.directory))
    server.said("serving")
    return server


def serve_in_kernel(instance: Instance) -> Process:
    """Serve it by HTTP on the kernel, at the peer's address."""
    arguments = (str(SERVER), instance.peer, str(PORT), str(instance.kit.directory))
    server = instance.kit.spawn(instance.client, sys.executable, *arguments)
    server.said("serving")
    return server


def curl(address: str, *options: str) -> list[str]:
    """Return a command that fetches the file."""
    return [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "200",
        *options,
        f"http://{address}:{PORT}/file",
    ]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
