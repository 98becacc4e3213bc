# SPDX-License-Identifier: MulanPSL-2.0
"""Where the C programs are: $GAZELLED_NATIVE, else `build/` of the source tree, else where a package puts them."""

from __future__ import annotations

import os
from pathlib import Path

from gazelled.base.errors import GazelledError

_PACKAGED = Path("/usr/lib/gazelled")


def native_dir() -> Path:
    """Return the directory with lstack/ and shim/ in it; whether they are there, is not checked."""
    given = os.environ.get("GAZELLED_NATIVE")
    if given:
        return Path(given)
    source_tree = Path(__file__).resolve().parents[2]
    return source_tree / "build" if (source_tree / "native").is_dir() else _PACKAGED


def worker_program() -> Path:
    """Return the path of lstack, the worker."""
    return _built("lstack/lstack")


def shim_library() -> Path:
    """Return the path of liblstack.so, which applications preload."""
    return _built("shim/liblstack.so")


def uplink_control() -> Path:
    """Return the path of uplinkctl, which loads and attaches the tc programs of an uplink."""
    return _built("bpf/uplinkctl")


def uplink_object() -> Path:
    """Return the path of those programs."""
    return _built("bpf/uplink.bpf.o")


def _built(name: str) -> Path:
    path = native_dir() / name
    if not path.is_file():
        raise GazelledError(
            f"{path}: not built", hint="`make build` builds it; $GAZELLED_NATIVE names another build directory"
        )
    return path
