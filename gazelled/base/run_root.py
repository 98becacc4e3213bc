# SPDX-License-Identifier: MulanPSL-2.0
"""Where run directories are: those of instances, and the NIC commands' own beside them."""

from __future__ import annotations

import os
from pathlib import Path


def run_root() -> Path:
    """Return the directory that holds every instance's run directory."""
    return Path(os.environ.get("GAZELLED_RUN_ROOT", "/run/gazelled"))
