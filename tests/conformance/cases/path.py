# SPDX-License-Identifier: MulanPSL-2.0
"""A connection that is held while the harness asks which path its sockets took (test_path.py)."""

from __future__ import annotations

from conformance.env import T
from conformance.registry import case


@case()
def held_connection(t: T) -> None:
    s, p = t.pair()
    t.hold()
    s.send(b"on we go")
    p.recv()
